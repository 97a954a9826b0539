public import Models
public import Passes
internal import Tensors

/// Makes every block narrower: attention heads, feed-forward channels or the residual stream. What is written is an ordinary, smaller checkpoint.
///
/// Every block keeps as many as every other, because configurations have one number for all; which ones, each block decides for itself, except
/// in the residual stream, where one choice serves the whole model. What reads the pruned channels and heads then makes up for them by least
/// squares. Sources: Minitron (Muralidharan et al. 2024), FLAP (An et al. 2024), Wanda (Sun et al. 2023); see `WidthImportance`.
/// Deviation from FLAP: uniform sizes instead of a global budget over standardised scores, which no such configuration can express.
public struct PruneWidth: Pass, Hashable {
  public static let name = "prune_width"
  public static let summary = "fewer feed-forward channels, heads or hidden dimensions (Minitron, FLAP, least squares)"

  /// Of the weights in the blocks' linears, what is to go along `axis`; not used where sizes are given.
  public var ratio = 0.2
  public var axis = WidthAxis.feedForward
  /// What sizes that follow from the ratio are rounded to.
  public var multipleOf = 32
  public var feedForward: Int?
  public var heads: Int?
  public var keyValueHeads: Int?
  public var hidden: Int?
  public var importance = WidthImportance.activations
  public var compensation = Compensation.leastSquares
  /// Added to the diagonal of the second moment, as a share of its mean.
  public var damping = 1e-3

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case ratio, axis, multipleOf = "multiple_of", feedForward = "feed_forward", heads, keyValueHeads = "key_value_heads", hidden,
      importance,
      compensation, damping
  }

  var hasSizes: Bool { feedForward != nil || heads != nil || keyValueHeads != nil || hidden != nil }
  private var reducesHidden: Bool { hasSizes ? hidden != nil : axis == .hidden }

  public var usesCalibration: Bool { importance.needsData || compensation != .none || reducesHidden }
  public var changesHiddenBasis: Bool { reducesHidden }
  /// The same dimensions go at both ends.
  public var untiesHead: Bool { false }
  public var analyses: [any Analysis] { reducesHidden ? [analysis] : [] }
  private var analysis: HiddenReductionAnalysis { HiddenReductionAnalysis(choice: .dimensions(self)) }

  /// Where only heads go, what is fitted is narrower than the widest layer by no rule that linears alone tell, so nothing is said.
  public func fittedWidth(in linears: [PlannedLinear]) -> Int? {
    let reachesFeedForward = hasSizes ? feedForward != nil || hidden != nil : [.feedForward, .hidden].contains(axis)
    return compensation == .leastSquares && reachesFeedForward ? linears.widestInput() : nil
  }

  public func validate() throws(InvalidOption) {
    guard ratio > 0, ratio < 1 else { throw InvalidOption("ratio", "\(ratio): between 0 and 1") }
    guard multipleOf > 0 else { throw InvalidOption("multiple_of", "\(multipleOf): a positive number") }
    guard damping >= 0 else { throw InvalidOption("damping", "\(damping): not below zero") }
    guard !(reducesHidden && importance == .reconstruction) else {
      throw InvalidOption(
        "importance",
        "reconstruction is about one layer's inputs; hidden dimensions need activations, fluctuation, wanda, magnitude or random")
    }
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    if reducesHidden, let reason = description.residualObstacle {
      throw InvalidOption("axis", "\(reason), so hidden dimensions cannot be left out")
    }
    for block in description.blocks {
      guard block.mixers.count == 1, case .separate = block.attention?.projections, let feedForward = block.feedForward,
        feedForward.mixture == nil, !feedForward.linears.isFused
      else {
        throw InvalidOption(
          "axis", "\(block.prefix.dropLast()) is not a block of q, k, v, o and one feed-forward network; it cannot be made narrower")
      }
    }
    var smaller = description
    for index in smaller.blocks.indices {
      let sizes = try WidthSizes(self, description.blocks[index])
      if let heads = description.blocks[index].heads, sizes.heads < heads.queries, let reason = heads.obstacle {
        throw InvalidOption("axis", reason + "; heads cannot be left out")
      }
      smaller.hiddenSize = sizes.hidden
      resize(&smaller.blocks[index], to: sizes)
    }
    if smaller.hiddenSize != description.hiddenSize {
      smaller.normEpsilon = HiddenReduction.epsilon(description.normEpsilon, from: description.hiddenSize, to: smaller.hiddenSize)
    }
    return smaller
  }

  private func resize(_ block: inout BlockDescription, to sizes: WidthSizes) {
    if compensation == .bias {
      let whole = WidthSizes(block)
      if sizes.feedForward < whole.feedForward { block.feedForward?.hasBias = true }
      if sizes.heads < whole.heads { block.attention?.giveBiases() }
    }
    block.feedForward?.size = sizes.feedForward
    block.heads?.queries = sizes.heads
    block.heads?.keyValues = sizes.keyValueHeads
    if sizes.hidden < block.hiddenSize {
      block.normEpsilon = HiddenReduction.epsilon(block.normEpsilon, from: block.hiddenSize, to: sizes.hidden)
      block.hiddenSize = sizes.hidden
    }
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    if reducesHidden { try context.answer(to: analysis).apply(to: &part, context) }
    try part.withBlock { try narrow(&$0, context) }
  }

  private func narrow(_ block: inout Block, _ context: PassContext) throws {
    let whole = block.description
    let parts = try BlockParts(block)
    // The residual stream is as narrow as it will be already.
    var pass = self
    if reducesHidden { pass.hidden = whole.hiddenSize }
    let sizes = try WidthSizes(pass, whole)
    if let heads = whole.heads, sizes.heads < heads.queries { try pruneHeads(of: &block, heads, to: sizes, parts, context) }
    if let network = whole.feedForward, sizes.feedForward < network.size {
      try pruneFeedForward(of: &block, network, to: sizes, parts, context)
    }
  }

  // MARK: One layer

  private func pruneFeedForward(
    of block: inout Block, _ whole: FeedForwardDescription, to sizes: WidthSizes, _ parts: BlockParts, _ context: PassContext
  ) throws {
    let channels = whole.size
    let elimination = Elimination(
      units: (0..<channels).map { [$0] }, classes: Array(repeating: 0, count: channels), quota: channels - sizes.feedForward)
    let makers = parts.feedForwardReaders.map { block[$0].weight.dense().rowSquares }
    let unitMakers = (0..<channels).map { channel in makers.reduce(0) { $0 + $1[channel] } }
    let removed = try shrink(parts.feedForwardWriter, of: &block, elimination, makers: unitMakers, context)
    let kept = (0..<channels).filter { !removed.contains($0) }
    for name in parts.feedForwardReaders { block.keep(rows: kept, of: name) }
    block.description.feedForward?.size = kept.count
    if compensation == .bias {
      block.description.feedForward?.hasBias = true
      block.giveBiases(to: parts.feedForwardReaders + [parts.feedForwardWriter])
    }
  }

  private func pruneHeads(
    of block: inout Block, _ whole: AttentionHeads, to sizes: WidthSizes, _ parts: BlockParts, _ context: PassContext
  ) throws {
    let (size, group) = (whole.size, whole.group)
    func columns(_ heads: Range<Int>) -> [Int] { Array(heads.lowerBound * size..<heads.upperBound * size) }
    let squares = parts.attentionReaders.map { block[$0].weight.dense().rowSquares }
    func sum(_ squares: [Double], _ range: Range<Int>) -> Double { columns(range).reduce(0) { $0 + squares[$1] } }
    var keyValues = Array(0..<whole.keyValues)
    if sizes.keyValueHeads < whole.keyValues {
      // A key-value head goes with all that reads it.
      let elimination = Elimination(
        units: keyValues.map { columns($0 * group..<($0 + 1) * group) }, classes: keyValues.map { _ in 0 },
        quota: whole.keyValues - sizes.keyValueHeads)
      let makers = keyValues.map { head in
        sum(squares[0], head * group..<(head + 1) * group) + squares.dropFirst().reduce(0) { $0 + sum($1, head..<head + 1) }
      }
      let removed = try shrink(parts.attentionWriter, of: &block, elimination, makers: makers, context)
      keyValues.removeAll { removed.contains($0) }
      let queries = keyValues.flatMap { $0 * group..<($0 + 1) * group }
      block.keepReaders(queries: queries, keyValues: keyValues, parts)
    }
    let keptGroup = sizes.heads / sizes.keyValueHeads
    if keptGroup < group {
      let heads = Array(0..<keyValues.count * group)
      let elimination = Elimination(
        units: heads.map { columns($0..<$0 + 1) }, classes: heads.map { $0 / group }, quota: group - keptGroup)
      let queries = block[parts.attentionReaders[0]].weight.dense().rowSquares
      let removed = try shrink(
        parts.attentionWriter, of: &block, elimination, makers: heads.map { sum(queries, $0..<$0 + 1) }, context)
      block.keepReaders(queries: heads.filter { !removed.contains($0) }, keyValues: Array(keyValues.indices), parts)
    }
    if compensation == .bias {
      block.description.attention?.giveBiases()
      block.giveBiases(to: parts.attentionReaders + [parts.attentionWriter])
    }
  }

  /// Chooses the units that go, cuts their columns out of the layer that reads them, and makes up for them.
  ///
  /// - Returns: the units.
  private func shrink(
    _ name: LinearName, of block: inout Block, _ elimination: Elimination, makers: [Double], _ context: PassContext
  ) throws -> Set<Int> {
    let moments =
      usesCalibration ? try context.statistic(ChannelMoments.self, of: InputGroup([name]), in: block, changingMakers: true) : nil
    let weight = block[name].weight.dense()
    var removed: Set<Int>?
    if importance == .reconstruction, let moments {
      removed = elimination.run(weight, moment: moments.matrix, damping: damping)?.removed
      if removed == nil { try context.recordFallback(name, in: block, "the inputs' second moment cannot be inverted: chosen as by wanda") }
    }
    if removed == nil {
      var random = context.randomness(for: name, in: block)
      let scores = UnitScores(reader: weight, units: elimination.units, makers: makers)
        .values(importance == .reconstruction ? .wanda : importance, moments, random: &random)
      removed = elimination.lowest(scores)
    }
    let gone = removed ?? []
    let dropped = Set(gone.flatMap { elimination.units[$0] })
    let kept = (0..<weight.columns).filter { !dropped.contains($0) }
    let scheme = "\(elimination.units.count - gone.count) of \(elimination.units.count)"
    guard let moments else {
      block[name].weight = weight.selecting(columns: kept)
      context.record(name, in: block, ["kept": Double(elimination.units.count - gone.count)], scheme: scheme)
      return gone
    }
    var result = compensation.apply(to: weight, keeping: kept, moments, damping: damping)
    if result == nil {
      try context.recordFallback(name, in: block, "least squares has no solution here: the remaining weights stay as they are")
      result = Compensation.none.apply(to: weight, keeping: kept, moments, damping: damping)
    }
    guard let result else { return gone }
    block[name].weight = result.weight
    if let bias = result.bias {
      block[name].bias = zip(block[name].bias ?? bias.map { _ in 0 }, bias).map { $0 + $1 }
    }
    context.record(
      name, in: block,
      [
        "kept": Double(elimination.units.count - gone.count), "relative_layer_loss": result.relativeLoss,
        "relative_layer_loss_without_compensation": result.relativeLossWithout,
      ], scheme: scheme)
    return gone
  }
}

extension Elimination {
  /// The lowest scores of every class.
  func lowest(_ scores: [Double]) -> Set<Int> {
    Set(
      Dictionary(grouping: units.indices, by: { classes[$0] }).values.flatMap { members in
        members.sorted { (scores[$0], $0) < (scores[$1], $1) }.prefix(quota)
      })
  }
}

extension Block {
  /// Zeros where there are no biases yet: a configuration has one word for all of them.
  fileprivate mutating func giveBiases(to names: [LinearName]) {
    for name in names where self[name].bias == nil { self[name].bias = Array(repeating: 0, count: self[name].weight.rows) }
  }
}

extension Pass where Self == PruneWidth {
  /// Width pruning, for use in code: `Pipeline([.pruneWidth(ratio: 0.2)])`.
  public static func pruneWidth(
    ratio: Double = 0.2, axis: WidthAxis = .feedForward, importance: WidthImportance = .activations,
    compensation: Compensation = .leastSquares
  ) -> PruneWidth {
    var pass = PruneWidth()
    (pass.ratio, pass.axis, pass.importance, pass.compensation) = (ratio, axis, importance, compensation)
    return pass
  }
}

extension AttentionDescription {
  /// Lets every linear add what makes up for heads that are gone.
  fileprivate mutating func giveBiases() {
    (hasOutputBias, hasProjectionBias) = (true, true)
  }
}
