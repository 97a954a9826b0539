public import Evaluation
internal import Foundation
public import Models
public import Passes
internal import Tensors

/// What a run will need, from headers alone.
public struct ResourceEstimate: Sendable, Equatable {
  /// Bytes that the passes need whatever the limit: the program, one block as floats, the largest Hessian with its workspace, a piece of the
  /// output.
  public var fixedMemory: Int
  /// Bytes of activations if all are kept in memory.
  public var activationMemory: Int
  public var memoryLimit: Int
  /// Of scoring what was written: what it needs whatever the limit, and the hidden states of all windows.
  public private(set) var evaluation = Evaluator.MemoryNeed()
  /// Floating-point operations of the forward passes, the Hessians, the solves and the scoring.
  public var operations: Double
  /// Bytes of the tensors to be written.
  public var outputBytes: Int

  /// Bytes of activations that will be in memory; the rest goes to the scratch file.
  public var activationBudget: Int { max(0, memoryLimit - fixedMemory) }
  /// Bytes without which nothing can be done, every state in a scratch file or made anew.
  public var leastMemory: Int { max(fixedMemory, evaluation.least) }
  public var peakMemory: Int {
    let scoring = evaluation.least + min(evaluation.states, max(0, memoryLimit - evaluation.least))
    return max(fixedMemory + min(activationMemory, activationBudget), scoring)
  }
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
    // Where inputs are compared with the original's, every token counts twice, and so does the moment of both.
    let streams = pipeline.comparesInputs ? 2 : 1
    // Codes and floats of what is being quantized; H, its arrangement and workspace in double, the factor in single precision.
    let solve = calibrated ? (2 * streams - 1) * (widest * widest * 28 + 4096 * widest * 8) : 0
    var sweep = largestBlock * (2 + 4 * streams) + solve + largestEnd / 4 + rewrittenBlock * 6 + rewrittenEnd * 10
    let longest = lengths.max() ?? 0
    func costs(ofWholeModel isWhole: Bool) -> [TrainingCost] {
      pipeline.passes.filter { ($0 is any ModelPass) == isWhole }.compactMap {
        ($0 as? any TrainingPass)?.cost(of: model.description, tokens: tokens, longest: longest)
      }
    }
    let (inside, whole) = (costs(ofWholeModel: false), costs(ofWholeModel: true))
    let training = inside + whole
    sweep += inside.map(\.memory).max() ?? 0
    fixedMemory = Machine.ownMemory + max(sweep, whole.map(\.memory).max() ?? 0)
    // A pass over the whole model finds it in memory.
    if pipeline.passes.contains(where: { $0 is any ModelPass }) { fixedMemory += plan.reduce(0) { $0 + $1.storedBits / 8 } }
    sweptActivations = calibrated ? streams * CalibrationStream.memoryNeed(tokens: tokens, description: model.description) : 0
    let analyses = pipeline.passes.flatMap(\.analyses).map {
      $0.heldStates(of: model.description) * model.description.hiddenSize * 4 * tokens
    }
    activationMemory = max(sweptActivations, training.map(\.activations).max() ?? 0, analyses.max() ?? 0)
    self.memoryLimit = memoryLimit
    outputBytes = plan.reduce(0) { $0 + $1.storedBits / 8 } + otherBytes
    let passes = Double(pipeline.passes.count { $0.usesCalibration })
    let all = Double(weights(plan.filter { !$0.isEnd }))
    guard calibrated else {
      operations = all * 400
      return
    }
    var operations = 2 * all * Double(tokens) * 1.25 * passes * Double(streams)
    for analysis in pipeline.passes.flatMap(\.analyses) {
      operations += analysis.operations(on: model.description, tokens: tokens, longest: longest)
    }
    for block in model.description.blocks {
      // Linears with one input share a Hessian. Of two streams there is one of twice the width.
      for group in block.inputGroups {
        let width = Double(streams * (group.linears.first.flatMap { block.linearShapes[$0]?.columns } ?? 0))
        operations += passes * width * width * Double(tokens)
      }
    }
    for linears in blocks.values {
      for linear in linears { operations += passes * 4 * Double(linear.rows) * Double(linear.columns * linear.columns) }
    }
    self.operations = operations + training.reduce(0) { $0 + $1.operations }
  }

  /// Adds the scoring of what was written against the original.
  mutating func add(_ evaluator: Evaluator, of model: ModelDescription, tokens: Int) {
    evaluation = evaluator.memoryNeed(of: [model, model], tokens: tokens)
    evaluation.least += Machine.ownMemory
    operations += 2 * evaluator.operations(of: model, tokens: tokens)
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
