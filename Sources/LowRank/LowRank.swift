public import Models
public import Passes
import Tensors

/// Replaces weights by products of two thin factors, y = B·(A·x), which take fewer bytes.
///
/// `whitened` finds, at every rank, the factors with the smallest error of the outputs over the calibration data, which is the solution of
/// SVD-LLM (Wang et al. 2024); `asvd` weighs inputs by the root of their mean magnitude (Yuan et al. 2023, α = 0.5), `svd` not at all. Sequential
/// factorization sees the inputs that the layers factored before it produce, and with `drift_correction` approximates the weight that makes
/// up for what they have changed: with W* = W + W·D·H⁻¹ and D = (X₀ − X)·Xᵀ the best approximation of W* under H = X·Xᵀ is the best of
/// all weights of its rank against the original outputs W·X₀ (reduced-rank regression), so both factors are updated, in closed form.
///
/// Linears that read the same input may share A: it is stored once, so that the same bytes buy a higher rank. Deviations from the papers:
/// ranks are multiples of `rank_multiple`, no singular value is spread over both factors (B has orthonormal columns), and a layer that no
/// rank makes smaller stays dense and is reported.
public struct LowRank: BlockPass, Hashable {
  public static let name = "low_rank"
  public static let summary =
    "replace weights by products of two thin factors (SVD, ASVD, SVD-LLM), the later ones mending the earlier ones"

  public enum Method: String, Sendable, Codable, CaseIterable { case svd, asvd, whitened }

  public enum Allocation: String, Sendable, Codable, CaseIterable {
    /// Every linear keeps the same share of its bytes.
    case uniform
    /// Ranks go where the whitened spectra lose least, each in relation to its layer's outputs.
    case energy
    /// The same, weighted by the divergence of the predictions with only that unit factored.
    case divergence = "kl"
  }

  public enum Sharing: String, Sendable, Codable, CaseIterable {
    case never, always
    /// Where the same bytes lose less that way.
    case auto
  }

  /// Share of the selected linears' bytes that is saved.
  public var ratio = 0.2
  /// Of every selected linear, in place of `ratio`.
  public var rank: Int?
  public var method = Method.whitened
  public var allocation = Allocation.uniform
  public var rankMultiple = 8
  /// Whether linears that read the same input have one A.
  public var share = Sharing.auto
  /// Whether the inputs are those that the layers factored before produce, rather than the original model's.
  public var sequential = true
  /// How much of the drift that earlier layers have caused the factors are asked to make up for, 0 to 1; sequential and whitened only.
  public var driftCorrection = 0.5
  /// Added to the diagonal of the inputs' second moment, as a fraction of its mean: what the calibration data never show is not free to lose.
  public var damping = 0.01
  /// Calibration sequences, from the end, on which divergence is measured, unless the recipe has probes of its own.
  public var probes = 8
  /// Whether the factors are multiplied out again: no bytes are saved, and every runtime loads the result.
  public var merge = false
  public var layers = LayerSelector()

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case ratio, rank, method, allocation, rankMultiple = "rank_multiple", share, sequential, driftCorrection = "drift_correction", damping,
      probes, merge, layers
  }

  public var comparesInputs: Bool { !sequential || correctsDrift }
  var correctsDrift: Bool { sequential && method == .whitened && driftCorrection > 0 }
  public var usesProbes: Bool { allocation == .divergence }
  public var analyses: [any Analysis] { allocation == .uniform ? [] : [RankAllocation(options: self)] }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { method == .whitened ? linears.widestInput(of: layers) : nil }

  public func validate() throws(InvalidOption) {
    guard ratio > 0, ratio < 1 else { throw InvalidOption("ratio", "\(ratio): between 0 and 1") }
    guard rank.map({ $0 > 0 }) ?? true else { throw InvalidOption("rank", "\(rank!): a positive number") }
    guard rank == nil || allocation == .uniform else { throw InvalidOption("allocation", "a fixed rank leaves nothing to allocate") }
    guard rank == nil || share != .auto else {
      throw InvalidOption("share", "auto compares at equal bytes, which a fixed rank does not give; never or always")
    }
    guard rankMultiple > 0 else { throw InvalidOption("rank_multiple", "\(rankMultiple): a positive number") }
    guard (0...1).contains(driftCorrection) else { throw InvalidOption("drift_correction", "\(driftCorrection): between 0 and 1") }
    guard method == .whitened || allocation == .uniform else {
      throw InvalidOption("allocation", "\(allocation.rawValue) goes by the whitened spectra; it needs method: whitened")
    }
    guard damping >= 0, damping < 10 else {
      throw InvalidOption("damping", "\(damping): a fraction of the second moment's mean diagonal, 0 to 10")
    }
    guard probes > 0 else { throw InvalidOption("probes", "\(probes): a positive number") }
  }

  /// - Throws: `InvalidOption` where ranks are to go by predictions that the model does not make.
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    guard description.hasLogits || allocation != .divergence else {
      throw InvalidOption("allocation", "kl goes by logits, and the model is an encoder without; uniform and energy need none")
    }
    return description
  }

  // MARK: Plan

  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    guard let block = description.blocks.first(where: { linear.name.hasPrefix($0.prefix) }) else {
      throw InvalidOption("layers", "\(linear.name): only layers of decoder blocks are factored")
    }
    guard linear.rank == nil, linear.weights == nil else { throw Self.refusal(of: linear.name, stored: linear.scheme) }
    let shapes = block.linearShapes.mapValues { FactorShape(rows: $0.rows, columns: $0.columns) }
    var (group, units, surplus) = ([LinearName](), [FactorUnit](), 0)
    for candidate in block.inputGroups where !units.contains(where: { $0.linears.contains { block.prefix + $0.rawValue == linear.name } }) {
      group = candidate.linears.filter { layers.contains(block.prefix + $0.rawValue) }
      units = self.units(of: group, shapes: shapes, sharing: share != .never, surplus: surplus)
      surplus = self.surplus(after: units, shapes: shapes, before: surplus)
    }
    guard let unit = units.first(where: { $0.linears.contains { block.prefix + $0.rawValue == linear.name } }), let rank = unit.rank else {
      return linear
    }
    var planned = linear
    (planned.isRewritten, planned.blocks) = (true, nil)
    planned.scheme = allocation == .uniform && (share != .auto || group.count == 1) ? "rank \(rank)" : "rank by the data"
    if merge {
      planned.scheme += ", merged"
      return planned
    }
    planned.rank = rank
    let stores = block.prefix + unit.linears[0].rawValue == linear.name
    planned.storedBits = rank * (linear.rows + (stores ? linear.columns : 0)) * linear.storageType.bitCount
    return planned
  }

  /// The linears of a group with their ranks when every group keeps its share.
  ///
  /// - Parameter surplus: elements that rounding ranks down has left over in the block so far.
  func units(of group: [LinearName], shapes: [LinearName: FactorShape], sharing: Bool, surplus: Int = 0) -> [FactorUnit] {
    guard !group.isEmpty else { return [] }
    let units = sharing ? [group] : group.map { [$0] }
    let joint = units.map { unit in FactorShape(rows: unit.reduce(0) { $0 + shapes[$1]!.rows }, columns: shapes[unit[0]]!.columns) }
    if let rank {
      return zip(units, joint).map { unit, shape in
        FactorUnit(linears: unit, rank: rank * shape.cost < shape.elements ? rank : nil)
      }
    }
    let elements = joint.reduce(0) { $0 + $1.elements }
    let ranks = RankBudget(step: rankMultiple).ranks(for: joint, elements: Int((1 - ratio) * Double(elements)) + surplus)
    return zip(units, ranks).map { FactorUnit(linears: $0, rank: $1) }
  }

  /// What is left over when these units, too, have their ranks.
  func surplus(after units: [FactorUnit], shapes: [LinearName: FactorShape], before surplus: Int) -> Int {
    guard rank == nil else { return 0 }
    return units.reduce(surplus) { left, unit in
      let whole = FactorShape(rows: unit.linears.reduce(0) { $0 + shapes[$1]!.rows }, columns: shapes[unit.linears[0]]!.columns)
      return left + Int((1 - ratio) * Double(whole.elements)) - (unit.rank.map { $0 * whole.cost } ?? whole.elements)
    }
  }

  static func refusal(of name: String, stored: String) -> InvalidOption {
    InvalidOption("layers", "\(name) is stored as \(stored), which factoring would undo; put low_rank before what compresses")
  }

  // MARK: Run

  public func run(on block: inout Block, in context: PassContext) throws {
    let allocated = allocation == .uniform ? nil : context.answer(to: RankAllocation(options: self))
    if let allocated { for remark in allocated.remarks { context.remark(remark) } }
    var surplus = 0
    for group in block.groups(layers) {
      for name in group.linears where !(block[name].weight is StoredWeight || block[name].weight is Matrix) {
        throw Self.refusal(of: block.fullName(of: name), stored: "\(type(of: block[name].weight))")
      }
      let inputs = try inputs(of: group, in: block, context)
      if inputs.isUnreached {
        for name in group.linears { try context.recordFallback(name, in: block, "\(Unreached.reason): factored by plain SVD") }
      }
      let original = group.linears.map { DoubleMatrix(block[$0].weight.dense()) }
      let weights = Dictionary(uniqueKeysWithValues: zip(group.linears, inputs.corrected(original)))
      let chosen: FactorChoice
      if let allocated {
        chosen = FactorChoice(allocated.units(of: group, in: block), of: weights, metric: inputs.metric)
      } else {
        chosen = FactorChoice(uniform: self, group: group, of: weights, metric: inputs.metric, surplus: surplus)
        let shapes = weights.mapValues { FactorShape(rows: $0.rows, columns: $0.columns) }
        surplus = self.surplus(after: chosen.units, shapes: shapes, before: surplus)
      }
      for unit in chosen.units { try factor(unit, chosen.components[unit.linears], of: &block, inputs, weights, context) }
    }
  }

  private func factor(
    _ unit: FactorUnit, _ components: UnitComponents?, of block: inout Block, _ inputs: FactorInputs,
    _ weights: [LinearName: DoubleMatrix], _ context: PassContext
  ) throws {
    guard let rank = unit.rank else {
      for name in unit.linears {
        let linear = block[name].weight
        context.record(name, in: block, ["bits_per_weight": Double(block[name].storageType.bitCount)])
        guard allocation == .uniform else { continue }
        try context.recordFallback(
          name, in: block, "no rank makes \(linear.rows)×\(linear.columns) smaller that is a multiple of \(rankMultiple): left dense")
      }
      return
    }
    guard let components else {
      for name in unit.linears { try context.recordFallback(name, in: block, "LAPACK found no eigenvectors: left dense") }
      return
    }
    let (outputs, input) = components.factors(rank: rank)
    let type = block[unit.linears[0]].storageType
    let a = input.stored(as: type)
    for (name, output) in zip(unit.linears, outputs) {
      let b = output.stored(as: block[name].storageType)
      let owner = name == unit.linears[0] ? nil : unit.linears[0]
      let factored = FactoredWeight(input: a, output: b, sharesInputOf: owner)
      let weight = weights[name]!
      let error = weight.subtracting(DoubleMatrix(b).times(DoubleMatrix(a)))
      let size = weight.energy(under: inputs.moment)
      block[name].weight = merge ? factored.dense() : factored
      var metrics = [
        "rank": Double(rank), "relative_layer_loss": size > 0 ? error.energy(under: inputs.moment) / size : 0,
        "bits_per_weight": Double(merge ? weight.rows * weight.columns * type.bitCount : factored.storedBits(denseAs: type))
          / Double(weight.rows * weight.columns),
      ]
      // Of the unit: the mean over the linears that share A.
      if method == .whitened { metrics["spectral_tail"] = components.relativeTail(beyond: rank) }
      context.record(name, in: block, metrics, scheme: "rank \(rank)\(owner.map { " over \($0)'s input factor" } ?? "")")
    }
  }

  private func inputs(of group: InputGroup, in block: Block, _ context: PassContext) throws -> FactorInputs {
    if correctsDrift {
      let (hessian, drift) = try context.secondMoment(of: group, in: block, comparing: true)
      if drift == nil, hessian.tokens > 0 {
        for name in group.linears { try context.recordFallback(name, in: block, Unreached.noDrift) }
      }
      return FactorInputs(hessian, damping: damping, metric: nil, drift: drift, strength: driftCorrection)
    }
    let hessian =
      sequential ? try context.statistic(Hessian.self, of: group, in: block) : try context.originalStatistic(Hessian.self, of: group)
    guard method == .asvd else { return FactorInputs(hessian, damping: damping, metric: method == .svd ? .identity : nil) }
    let magnitude =
      sequential
      ? try context.statistic(InputMagnitude.self, of: group, in: block) : try context.originalStatistic(InputMagnitude.self, of: group)
    // Diagonal S = diag(mean|x|^α), α = 1/2, as a second moment: S². An input that is always zero costs nothing to lose.
    return FactorInputs(hessian, damping: damping, metric: .diagonal(magnitude.means.map { Double($0) }))
  }
}

extension Pass where Self == LowRank {
  /// Low-rank factors, for use in code: `Pipeline([.lowRank(ratio: 0.2)])`.
  public static func lowRank(ratio: Double = 0.2) -> LowRank {
    var pass = LowRank()
    pass.ratio = ratio
    return pass
  }
}
