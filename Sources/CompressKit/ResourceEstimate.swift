internal import Foundation
public import Models
public import Passes
internal import Tensors

/// What a run will need, from headers alone.
public struct ResourceEstimate: Sendable, Equatable {
  /// Bytes needed whatever the limit: one block as floats, the largest Hessian with its workspace, a piece of the output.
  public var fixedMemory: Int
  /// Bytes of activations if all are kept in memory.
  public var activationMemory: Int
  public var memoryLimit: Int
  /// Floating-point operations of the forward passes, the Hessians and the solves.
  public var operations: Double
  /// Bytes of the tensors to be written.
  public var outputBytes: Int

  /// Bytes of activations that will be in memory; the rest goes to the scratch file.
  public var activationBudget: Int { max(0, memoryLimit - fixedMemory) }
  public var peakMemory: Int { fixedMemory + min(activationMemory, activationBudget) }
  public var spills: Bool { sweptActivations > activationBudget }
  /// Of those, what sweeps carry through the model.
  private var sweptActivations: Int

  /// - Parameters:
  ///   - calibration: tokens of every sequence; none for data-free runs.
  public init(of model: Model, plan: [PlannedLinear], pipeline: Pipeline, calibration lengths: [Int], memoryLimit: Int, otherBytes: Int) {
    let tokens = lengths.reduce(0, +)
    let prefixes = model.description.blocks.map(\.prefix)
    let blocks = Dictionary(grouping: plan.filter { $0.role != .embedding && $0.role != .head }) { linear in
      prefixes.first { linear.name.hasPrefix($0) } ?? ""
    }
    // What is made smaller is worked on at its full size.
    func weights(_ linears: [PlannedLinear]) -> Int {
      linears.reduce(0) { $0 + max($1.rows * $1.columns, $1.sourceBits / $1.storageType.bitCount) }
    }
    let largestBlock = blocks.values.map(weights).max() ?? 0
    let calibrated = pipeline.usesCalibration && tokens > 0
    let widest = model.description.blocks.flatMap { $0.linearShapes.values.map(\.columns) }.max() ?? 0
    let ends = plan.filter { $0.role == .embedding || $0.role == .head }
    let largestEnd = ends.map { $0.rows * $0.columns }.max() ?? 0
    // What is made anew is held as floats: all of an end, and a block while the one before it is being written.
    let rewrittenBlock = blocks.values.map { weights($0.filter(\.isRewritten)) }.max() ?? 0
    let rewrittenEnd = ends.filter(\.isRewritten).map { $0.rows * $0.columns }.max() ?? 0
    // Codes and floats of what is being quantized; H, its arrangement and workspace in double, the factor in single precision.
    let solve = calibrated ? widest * widest * 28 : 0
    fixedMemory = 96 << 20 + largestBlock * 6 + solve + (calibrated ? 4096 * widest * 8 : 0) + largestEnd / 4
    fixedMemory += rewrittenBlock * 6 + rewrittenEnd * 10
    let training = pipeline.passes.compactMap {
      ($0 as? any TrainingPass)?.cost(of: model.description, tokens: tokens, longest: lengths.max() ?? 0)
    }
    fixedMemory += training.map(\.memory).max() ?? 0
    // A pass over the whole model finds it in memory.
    if pipeline.passes.contains(where: { $0 is any ModelPass }) { fixedMemory += plan.reduce(0) { $0 + $1.storedBits / 8 } }
    sweptActivations = calibrated ? CalibrationStream.memoryNeed(tokens: tokens, description: model.description) : 0
    activationMemory = max(sweptActivations, training.map(\.activations).max() ?? 0)
    self.memoryLimit = memoryLimit
    outputBytes = plan.reduce(0) { $0 + $1.storedBits / 8 } + otherBytes
    let passes = Double(pipeline.passes.count { $0.usesCalibration })
    let all = Double(weights(plan.filter { !$0.isEnd }))
    guard calibrated else {
      operations = all * 400
      return
    }
    var operations = 2 * all * Double(tokens) * 1.25 * passes
    for linears in blocks.values {
      // Linears with one input share a Hessian, and so mostly do those of one width.
      for width in Set(linears.map(\.columns)) { operations += passes * Double(width * width) * Double(tokens) }
      for linear in linears { operations += passes * 4 * Double(linear.rows) * Double(linear.columns * linear.columns) }
    }
    self.operations = operations + training.reduce(0) { $0 + $1.operations }
  }

  /// Seconds at the speed a short matrix product reaches on this machine now.
  public func measuredSeconds() -> Double {
    let matrix = Matrix(rows: 512, columns: 512, repeating: 0.5)
    let width = Parallel.width
    _ = matrix.times(transposed: matrix)
    let start = ContinuousClock.now
    Parallel.forEach(4 * width) { _ in _ = matrix.times(transposed: matrix) }
    let seconds = start.duration(to: .now).seconds
    return operations / (Double(4 * width) * 2 * pow(512, 3) / max(seconds, 1e-6))
  }
}
