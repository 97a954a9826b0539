public import Models
public import Passes
internal import Tensors
public import Training

/// Tunes quantized weights block by block: codes, scales and what else is named move down the gradient of the difference between what the
/// block makes and what the original block makes, on the inputs as they really come in.
///
/// It begins with the codes that the passes before it have chosen (`gptq`, `rtn`) and moves codes through latent numbers by straight-through
/// gradients (Chen et al. 2024, "EfficientQAT", block-wise training of all parameters; Cheng et al. 2023, "SignRound", for rounding within
/// one step). Some sequences are kept out: a block whose loss on those does not fall keeps what it had, and the report says so.
public struct Tune: BlockPass, TrainingPass {
  public static let name = "tune"
  public static let summary = "tune codes, scales and norms of each quantized block by gradients"

  /// What moves.
  public enum Moving: String, Sendable, Codable, CaseIterable {
    /// Codes, by one step at most.
    case rounding
    /// Codes, as far as they like.
    case weights
    case scales
    case zeroPoints = "zero_points"
    case norms
    case biases
  }

  public var moves: [Moving] = [.weights, .scales]
  public var loss = StateLoss.relative
  /// Passes over the calibration sequences.
  public var epochs = 10
  /// Sequences a step.
  public var batch = 4
  /// How fast codes move, in steps of the grid.
  public var rate = 0.005
  /// How fast scales move, as shares of themselves, and zero points, in steps of the grid.
  public var scaleRate = 0.0005
  /// How fast norms and biases move.
  public var normRate = 0.0005
  public var schedule = LearningRate.Decay.cosine
  /// How far from their codes latents begin, towards the original weights, in steps.
  public var reach = 0.25
  /// The share of the calibration sequences that gradients are not taken of.
  public var keptOut = 0.125
  public var layers = LayerSelector()

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case moves, loss, epochs, batch, rate, scaleRate = "scale_rate", normRate = "norm_rate", schedule, reach, keptOut = "kept_out", layers
  }

  public var comparesInputs: Bool { true }
  /// Factors stay as they are; norms and biases beside them may move.
  public var acceptsFactors: Bool { true }

  public func validate() throws(InvalidOption) {
    guard !moves.isEmpty else { throw InvalidOption("moves", "at least one of \(Moving.allCases.map(\.rawValue).joined(separator: ", "))") }
    guard !moves.contains(.rounding) || !moves.contains(.weights) else {
      throw InvalidOption("moves", "rounding moves codes by one step at most, weights as far as they like: one of both")
    }
    guard epochs >= 1 else { throw InvalidOption("epochs", "\(epochs): a positive number") }
    guard batch >= 1 else { throw InvalidOption("batch", "\(batch): a positive number") }
    for (name, value) in [("rate", rate), ("scale_rate", scaleRate), ("norm_rate", normRate)] where !(value > 0 && value < 1) {
      throw InvalidOption(name, "\(value): above 0 and below 1")
    }
    guard (0..<0.5).contains(reach) else { throw InvalidOption("reach", "\(reach): 0 or more, below half a step") }
    guard keptOut > 0, keptOut <= 0.5 else { throw InvalidOption("kept_out", "\(keptOut): above 0, at most 0.5") }
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    if let obstacle = description.gradientObstacle { throw InvalidOption("moves", obstacle) }
    return description
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    guard let reference = context.reference as? Block else { return }
    let start = TrainableBlock(block, moving: moving, towards: reference, reach: Float(reach))
    for (name, reason) in start.unmoved.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      try context.recordFallback(name, in: block, "\(reason): left as it is")
    }
    if start.keepsPowersOfTwo { context.remark("tune: scales that are powers of two do not move") }
    guard start.isMoving else {
      return context.remark(
        "tune: some blocks hold nothing that it moves (\(moves.map(\.rawValue).joined(separator: ", "))) and stay as they are")
    }
    let sequences = Array(0..<context.sequenceCount)
    guard !sequences.isEmpty else { throw MissingCalibration() }
    let split = KeptOut(of: sequences.count, share: keptOut)
    if split.isEmpty {
      context.remark("tune: too few calibration sequences to keep one out; the last one decides and is learned from, too")
    }
    let positions = context.longestSequence
    let original = PreparedBlock(reference, positions: positions)
    let targets = try Parallel.map(sequences.count) { try original.forward(try context.blockInputs(of: $0).original) }
    var random = context.randomness(for: "order", in: block)
    let outcome = try tuner(positions).tune(
      start, { (try context.blockInputs(of: $0).own, targets[$0]) }, training: split.training, keptOut: split.validation, random: &random)
    var metrics = ["loss_before": outcome.before, "loss_after": outcome.after, "steps": Double(outcome.steps)]
    if outcome.after < outcome.before {
      let finished = outcome.block.finished()
      metrics["codes_moved"] = finished.movedCodes(since: block)
      block = finished
    }
    if let step = outcome.divergedAt {
      context.remark("tune: \(block.name) overflowed at step \(step), and what was best before is kept; lower rates would serve it")
    }
    context.recordBlock(block, metrics)
  }

  /// Of each weight of a block its latent, two moments, a gradient, its number, and the best so far; and what a batch leaves behind.
  public func cost(of description: ModelDescription, tokens: Int, longest: Int) -> TrainingCost {
    let weights = description.blocks.map(\.weightCount)
    let recorded = description.blocks.map(\.recordedNumbers).max() ?? 0
    // Forward and back is three times forward; what is kept out is seen once an epoch, and at the beginning.
    let visits = Double(epochs) * (6 * (1 - keptOut) + 2 * keptOut) + 4
    return TrainingCost(
      memory: 24 * (weights.max() ?? 0) + 4 * Int(min(Double(batch) * Double(longest), Double(tokens))) * 2 * recorded + 4 * tokens
        * description.hiddenSize,
      operations: visits * Double(tokens) * Double(weights.reduce(0, +)))
  }

  private var moving: MovingParameters {
    var moving = MovingParameters()
    moving.codes = moves.contains(.rounding) || moves.contains(.weights)
    moving.reach = moves.contains(.rounding) ? 0.5 : nil
    moving.scales = moves.contains(.scales)
    moving.zeroPoints = moves.contains(.zeroPoints)
    moving.norms = moves.contains(.norms)
    moving.biases = moves.contains(.biases)
    moving.layers = layers
    return moving
  }

  private func tuner(_ positions: Int) -> BlockTuner {
    var rates = StepRates()
    rates.codes = Float(rate)
    rates.scales = Float(scaleRate)
    rates.zeroPoints = Float(rate)
    rates.numbers = Float(normRate)
    var tuner = BlockTuner(
      epochs: epochs, batch: batch, schedule: LearningRate(peak: 1, decay: schedule), rates: rates, positions: positions)
    tuner.loss = loss
    return tuner
  }
}

extension Block {
  /// The share of codes that are others than in the block before.
  fileprivate func movedCodes(since before: Block) -> Double {
    var (moved, all) = (0, 0)
    for (name, linear) in linears {
      guard let new = linear.weight as? QuantizedMatrix, let old = before[name].weight as? QuantizedMatrix else { continue }
      moved += zip(new.codes, old.codes).count { $0 != $1 }
      all += new.codes.count
    }
    return Double(moved) / Double(max(1, all))
  }
}
