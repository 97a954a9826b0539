public import Models
public import Passes
import Tensors

/// AWQ: moves a scale per channel from each linear's producer into its weights, so that the inputs that matter most are quantized most
/// finely (Lin et al. 2023, algorithm 1); a transform, to be followed by a pass that quantizes.
///
/// A scale is a power of the inputs' mean magnitude; the power is the one that loses least behind attention or the feed-forward layer once the weights are rounded with the scheme and the scale search of the pass that follows. Deviations from the reference
/// implementation: the loss is measured on a sample of tokens, each relative to the
/// size of its residual stream; value projections are scaled under grouped queries too; what loses more than
/// no scaling is reverted; and because the quantizing pass comes next on the same block, later blocks see the inputs that the compressed
/// model will give them instead of the original's.
public struct AWQ: BlockPass {
  public static let name = "awq"
  public static let summary = "activation-aware scales, moved into the weights before a pass that quantizes"

  /// Steps of the power between 0 and 1.
  public var grid = 20
  public var duo = DuoScaling.enabled
  /// Whether the weights are limited, group by group, where that makes the rounded layer lose less.
  public var clip = false
  /// Calibration sequences that magnitudes are averaged over.
  public var sequences = 32
  /// Tokens of them that losses are measured on.
  public var tokens = 1024
  /// The linears that may be scaled; a scale moves only if all that read the scaled input are among them.
  public var layers = LayerSelector()

  public init() {}

  /// Limited weights are other weights, but it is in the scaled block that whatever comes next has its inputs.
  public var isExact: Bool { true }

  public func validate() throws(InvalidOption) {
    guard grid >= 1 else { throw InvalidOption("grid", "\(grid): at least one step is needed") }
    guard sequences >= 1 else { throw InvalidOption("sequences", "\(sequences): at least one is needed") }
    guard tokens >= 1 else { throw InvalidOption("tokens", "\(tokens): at least one is needed") }
  }

  public func validate(before following: [any Pass]) throws(InvalidOption) {
    try QuantizerPreview.check(following, because: "awq only prepares weights for quantization")
  }

  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear {
    try linear.checkUnquantized(in: description) { layers.moves($0, in: $1) }
    return linear
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    let scalings = block.description.scalings.filter { $0.consumers.allSatisfy { block.isNamedOnly($0) || block.selects(layers, $0) } }
    for scaling in scalings { try scaling.checkUnquantized(in: block) }
    let sample = try BlockSample(of: block, sequences: try context.inputs(of: block, limit: sequences), tokens: tokens)
    let search = ScalingSearch(sample: sample, preview: QuantizerPreview(context.following))
    var scaled = block
    // Candidates are many and weights few: they are read from their file once.
    for name in block.linears.keys { scaled[name].weight = block[name].weight.dense() }
    let original = scaled
    // Their errors multiply, so no layer's own loss says how far they may be clipped.
    let scoreMakers = block.description.scoreMakers
    var factors: [Int: [Float]] = [:]
    var changed = Set<LinearName>()
    var records: [(name: LinearName, metrics: [String: Double])] = []
    for scaling in scalings {
      let stage = search.stage(of: scaling, in: block)
      if sample.magnitudes[stage].tokens == 0, scaling.consumers.contains(where: { search.preview.quantizer(of: $0, in: block) != nil }) {
        for name in scaling.consumers { try context.recordFallback(name, in: block, "\(Unreached.reason): left unscaled") }
        continue
      }
      let candidates = candidates(for: scaling, in: scaled, magnitude: sample.magnitudes[stage], search.preview)
      guard var choice = try search.choose(scaling, among: candidates, for: scaled) else { continue }
      guard choice.unscaledLoss.isFinite else {
        for name in scaling.consumers { try context.recordFallback(name, in: block, "its loss is not finite: left unscaled") }
        continue
      }
      let clipped =
        clip ? try limit(scaling.consumers.filter { !scoreMakers.contains($0) }, stage, &choice, scaling, search) : [:]
      if choice.candidate != nil {
        for stage in search.stages(of: scaling, in: block) { factors[stage] = choice.factors }
        changed.formUnion(scaling.consumers)
        if case .linear(let name) = scaling.producer { changed.insert(name) }
      }
      changed.formUnion(clipped.keys)
      scaled = choice.block
      for name in scaling.consumers {
        var metrics = choice.candidate?.metrics ?? ["ratio": 0]
        metrics["unscaled_loss"] = choice.unscaledLoss
        metrics["loss"] = choice.loss
        if clip { metrics["clipped_share"] = clipped[name] ?? 0 }
        records.append((name, metrics))
      }
    }
    guard !records.isEmpty else { return }
    // Every scale helps its own layer; together they must help the block.
    let reference = try sample.outputs(of: original)
    let before = try search.wholeLoss(of: original, factors: [:], against: reference)
    let after = try search.wholeLoss(of: scaled, factors: factors, against: reference)
    let reverted = !(after <= before)
    for (name, metrics) in records {
      let figures = ["unscaled_block_loss": before, "block_loss": after, "reverted": reverted ? 1 : 0]
      context.record(name, in: block, metrics.merging(figures) { $1 })
    }
    guard !reverted else { return }
    block.norms = scaled.norms
    for name in changed { block[name] = scaled[name] }
  }

  /// Limits the weights of some linears that read the same input, if the output then loses less.
  ///
  /// - Returns: the share of weights that changed, by linear.
  private func limit(
    _ names: [LinearName], _ stage: Int, _ choice: inout ScalingSearch.Choice, _ scaling: Scaling, _ search: ScalingSearch
  ) throws -> [LinearName: Double] {
    var limited = choice.block
    var shares: [LinearName: Double] = [:]
    let clipping = WeightClipping(inputs: search.sample.kept(stage, dividedBy: choice.factors))
    let input = search.sample.magnitudes[stage].divided(by: choice.factors)
    for name in names {
      guard let quantizer = search.preview.quantizer(of: name, in: limited) else { continue }
      let size = try quantizer.storedScheme(of: name, in: limited).groupSize(columns: limited[name].weight.columns)
      let (weight, share) = try clipping.limited(choice.block[name].weight.dense(), groupSize: size) { weight in
        try search.preview.rounded(weight, as: name, sharingWith: scaling.consumers, of: choice.block, input: input)
      }
      limited[name].weight = weight
      shares[name] = share
    }
    let reference = search.sample.contributions(of: choice.block, from: stage, dividedBy: choice.factors)
    let loss = try search.loss(of: limited, scaling, factors: choice.factors, against: reference)
    guard loss < choice.loss else { return [:] }
    (choice.block, choice.loss) = (limited, loss)
    return shares
  }
}

extension Pass where Self == AWQ {
  /// AWQ, for use in code: `Pipeline([.awq(), .rtn()])`.
  public static func awq() -> AWQ { AWQ() }
}
