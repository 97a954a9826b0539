public import Models
public import Passes
internal import Tensors

/// Leaves out the blocks that matter least, or attention and feed-forward layers one by one.
///
/// A whole block really goes: the others are numbered anew and `num_hidden_layers` counts fewer. A layer that goes alone has to stay in the file,
/// because no configuration says that it is missing: its output projection becomes zero, which saves no byte and, in runtimes that know nothing of
/// it, no time; a block that loses both its layers goes as a whole. What is left before a gap can take over, by least squares, what the gap
/// did to the residual stream (the idea of ReplaceMe, Shopkhoev et al. 2025, folded into a weight that is there already).
///
/// Criteria: block influence (ShortGPT, Men et al. 2024), and search by perplexity or divergence over blocks or layers, one removed at a time
/// (BlockPruner, Zhong et al. 2024).
public struct PruneDepth: Pass, Hashable {
  public static let name = "prune_depth"
  public static let summary = "fewer blocks, or blocks without attention or feed-forward layer (ShortGPT, BlockPruner)"

  public enum Unit: String, Sendable, Codable, CaseIterable {
    case blocks
    /// Attention and feed-forward layers.
    case layers
  }

  public enum Criterion: String, Sendable, Codable, CaseIterable {
    /// 1 − cos of the residual stream before and after, averaged over tokens; all at once (ShortGPT, equation 1).
    case influence
    /// Perplexity on calibration data without the unit, measured again after every removal.
    case perplexity
    /// Divergence from the original's predictions, measured again after every removal.
    case divergence = "kl"
    /// Σ w² of the unit.
    case magnitude
    case random
  }

  public enum Repair: String, Sendable, Codable, CaseIterable {
    case none
    /// The last layer before every gap.
    case gaps
    /// And every layer after the first gap, against the original's residual stream.
    case all
  }

  /// Of the weights in the blocks' linears, what is to go; the nearest that whole units allow, and at least one.
  public var ratio = 0.2
  /// How many units are to go, whatever they weigh.
  public var count: Int?
  public var units = Unit.blocks
  public var criterion = Criterion.divergence
  /// Blocks at both ends that are not touched.
  public var keepFirst = 0
  public var keepLast = 0
  /// Calibration sequences that the search measures on, from the end, unless the recipe has probes of its own.
  public var probes = 32
  public var repair = Repair.none
  /// Added to the diagonal of the second moment, as a share of its mean.
  public var damping = 1e-3

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case ratio, count, units, criterion, keepFirst = "keep_first", keepLast = "keep_last", probes, repair, damping
  }

  public var removesBlocks: Bool { true }
  public var usesCalibration: Bool { repair != .none || ![.magnitude, .random].contains(criterion) }
  public var usesProbes: Bool { criterion == .perplexity || criterion == .divergence }
  public var analyses: [any Analysis] { [DepthAnalysis(options: self)] }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { repair != .none ? linears.widestInput() : nil }

  public func validate() throws(InvalidOption) {
    guard ratio > 0, ratio < 1 else { throw InvalidOption("ratio", "\(ratio): between 0 and 1") }
    guard count ?? 1 > 0 else { throw InvalidOption("count", "a positive number") }
    guard probes > 0 else { throw InvalidOption("probes", "\(probes): a positive number") }
    guard keepFirst >= 0, keepLast >= 0 else { throw InvalidOption("keep_first", "not below zero, nor keep_last") }
    guard damping >= 0 else { throw InvalidOption("damping", "\(damping): not below zero") }
  }

  /// How many blocks go at least.
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    guard description.hasLogits || ![.perplexity, .divergence].contains(criterion) else {
      throw InvalidOption(
        "criterion", "\(criterion.rawValue) goes by logits, and the model is an encoder without; influence, magnitude and random need none")
    }
    _ = try DepthUnits(self, description)
    var smaller = description
    if units == .blocks { smaller.blocks.removeLast(count ?? DepthUnits.nearest(ratio, of: description)) }
    return smaller
  }

  public func removedBlocks(in context: PassContext) -> Set<Int> { context.answer(to: DepthAnalysis(options: self)).removed }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    let answer = context.answer(to: DepthAnalysis(options: self))
    for remark in answer.remarks { context.remark(remark) }
    try part.withBlock { try change(&$0, by: answer, context) }
  }

  private func change(_ block: inout Block, by answer: DepthSelection, _ context: PassContext) throws {
    let original = answer.kept[block.index]
    var metrics: [String: Double] = ["original_block": Double(original)]
    if let influence = answer.influences[original] { metrics["influence"] = influence }
    context.recordBlock(block, metrics)
    if let repaired = answer.repairs[original] {
      for (name, weight) in repaired.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
        block[name].weight = weight
        context.record(name, in: block, ["repaired": 1])
      }
    }
    for part in answer.missing[original] ?? [] {
      let name = block.description.residualWriters[part]
      block[name].weight = Matrix(rows: block[name].weight.rows, columns: block[name].weight.columns)
      if let bias = block[name].bias { block[name].bias = bias.map { _ in 0 } }
      context.record(name, in: block, ["missing": 1], scheme: "zero")
    }
  }
}

extension Pass where Self == PruneDepth {
  /// Depth pruning, for use in code: `Pipeline([.pruneDepth(ratio: 0.2)])`.
  public static func pruneDepth(
    ratio: Double = 0.2, units: PruneDepth.Unit = .blocks, criterion: PruneDepth.Criterion = .divergence
  ) -> PruneDepth {
    var pass = PruneDepth()
    (pass.ratio, pass.units, pass.criterion) = (ratio, units, criterion)
    return pass
  }
}
