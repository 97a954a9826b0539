public import Models
public import Passes
import Quantization
import Tensors

/// SparseGPT: removes weights column by column and lets the columns still to come make up for them (Frantar and Alistarh 2023).
///
/// Zeros are chosen as in the paper: of every block of columns among all outputs, or in every group of a pattern when it is reached, by what
/// their removal costs with the corrections made so far. With `quantize`, what is kept is rounded in the same sweep, so that the columns to
/// come make up for both. Deviations: the LDL form (one factorization, no inverse; the zeros are the same), inputs that the calibration data
/// never activates lose their weights first and keep the rest, damping rises in stated steps before a layer falls back to Wanda's choice,
/// and with `quantize` an unstructured choice is made among 64 outputs at a time, because scales need the outputs one by one.
public struct SparseGPT: Sparsifier {
  public static let name = "sparsegpt"
  public static let summary = "SparseGPT: remove weights column by column, correcting the rest by the calibration data"

  /// The order in which columns are taken.
  public enum Order: String, Sendable, Codable, CaseIterable {
    /// Left to right, as in the paper.
    case natural
    /// Most active inputs first, whole groups of a pattern together.
    case activation
  }

  public var sparsity: Double?
  public var pattern = SparsityPattern.unstructured
  public var allocation = SparsityAllocation.uniform
  public var owlThreshold = 5.0
  public var owlLimit = 0.08
  public var order = Order.natural
  /// Whether the kept weights are moved to the least squares of the whole loss once all zeros are known; with `quantize`, their scales.
  public var refit = true
  /// How much of the drift that earlier layers have caused the weights are asked to make up for; see the pass `gptq`.
  public var driftCorrection = 0.0
  /// Added to the diagonal of the Hessian, as a fraction of its mean.
  public var damping = 0.01
  /// Columns among which unstructured zeros are chosen at once.
  public var blockSize = 128
  /// The numbers that what is kept becomes; `none` for as they are.
  public var quantize = JointQuantization()
  public var layers = LayerSelector()

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case sparsity, pattern, allocation, owlThreshold = "owl_threshold", owlLimit = "owl_limit", order, refit,
      driftCorrection = "drift_correction", damping, blockSize = "block_size", quantize, layers
  }

  private var quantizer: GPTQ? { quantize.gptq(on: layers) }
  public var comparesInputs: Bool { driftCorrection > 0 }

  /// The block size in whole groups of the pattern.
  private var wholeBlockSize: Int {
    guard case .grouped(_, let group) = pattern else { return blockSize }
    return max(group, blockSize / group * group)
  }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { linears.widestInput(of: layers) }

  public func validate() throws(InvalidOption) {
    try validateSparsity()
    guard (0...1).contains(driftCorrection) else { throw InvalidOption("drift_correction", "\(driftCorrection): between 0 and 1") }
    guard blockSize >= 1 else { throw InvalidOption("block_size", "\(blockSize): a positive number") }
    try quantize.validate()
    guard quantizer == nil || order == .natural else {
      throw InvalidOption("order", "with quantize, columns are taken in their natural order: groups share scales")
    }
    if case .columns(let size)? = quantizer?.effective.groupSize, case .grouped(_, let group) = pattern, size % group != 0 {
      throw InvalidOption("quantize.group_size", "\(size): groups must hold whole groups of the pattern \(pattern)")
    }
  }

  public func remarks(on linears: [PlannedLinear]) -> [String] { quantizer?.automaticSizes(of: linears, as: Self.name) ?? [] }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    try checkFit(linear.name, columns: linear.columns)
    guard let gptq = quantizer else { return planned(linear) }
    var planned = try gptq.plan(linear)
    planned.scheme += " \(sparsityText)"
    return planned
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    let share = try share(of: part, in: context)
    for group in part.groups(layers) {
      guard !(part is Embedding) else {
        for name in group.linears {
          try pruneByMagnitude(
            name, of: &part, context, share: share, because: "an embedding is looked up, so it has no Hessian: pruned by magnitude")
        }
        continue
      }
      // Taken after the groups before it were pruned: true-sequential.
      let (hessian, drift) = try context.secondMoment(of: group, in: part, comparing: comparesInputs)
      let solver = SparseGPTSolver.prepare(
        hessian, pattern: pattern, isOrdered: order == .activation, damping: damping, refits: refit && quantizer == nil)
      let global = quantizer?.globalScale(of: group, in: part)
      for name in group.linears {
        try checkFit(part.fullName(of: name), columns: part[name].weight.columns)
        if comparesInputs, drift == nil, hessian.tokens > 0 { try context.recordFallback(name, in: part, Unreached.noDrift) }
        switch solver {
        case .success(let solver) where hessian.tokens > 0:
          try prune(name, of: &part, context, share: share, solver, drift, hessian, globalScale: global)
        default: try pruneWithoutHessian(name, of: &part, context, share: share, hessian, globalScale: global)
        }
      }
    }
  }

  private func prune(
    _ name: LinearName, of part: inout any ModelPart, _ context: PassContext, share: Double, _ solver: SparseGPTSolver,
    _ drift: InputDrift?, _ hessian: Hessian, globalScale: Float?
  ) throws {
    var target = part[name].weight.dense()
    if let drift { target = solver.factorization.corrected(target, for: drift, by: driftCorrection) }
    var metrics = ["damping": solver.factorization.damping, "calibration_tokens": Double(hessian.tokens)]
    if hessian.skippedTokens > 0 { metrics["skipped_tokens"] = Double(hessian.skippedTokens) }
    if solver.factorization.deadInputs > 0 { metrics["dead_inputs"] = Double(solver.factorization.deadInputs) }
    if allocation == .owl { metrics["target_sparsity"] = share }
    var scheme = sparsityText
    if let gptq = quantizer {
      let numbers = try gptq.storedScheme(of: name, in: part)
      let (quantized, loss) = solver.factorization.quantize(
        target, scheme: numbers, scales: gptq.scales, refit: refit, blockSize: wholeBlockSize, globalScale: globalScale, zeros: nil,
        choosing: ZeroChoice(pattern: pattern, sparsity: share, pivots: solver.pivots))
      part[name].weight = quantized
      metrics["relative_layer_loss"] = loss
      metrics["bits_per_weight"] = Double(quantized.storedBits) / Double(quantized.rows * quantized.columns)
      scheme = "\(numbers) \(sparsityText)"
      metrics["sparsity"] = quantized.dense().zeroShare
    } else {
      var solution = solver.prune(target, pattern: pattern, sparsity: share, blockSize: blockSize)
      if refit { solver.refit(&solution, toward: target) }
      part[name].weight = solution.weight
      metrics["relative_layer_loss"] = solution.relativeLoss
      metrics["sparsity"] = solution.weight.zeroShare
    }
    context.record(name, in: part, metrics, scheme: scheme)
    if solver.factorization.damping > damping {
      try context.recordFallback(
        name, in: part,
        "the Hessian was not positive definite: damping raised from \(damping) to \(solver.factorization.damping)")
    }
  }

  /// The numbers that the others get too: runtimes want linears they fuse in one format.
  private func roundPruned(_ name: LinearName, of part: inout any ModelPart, _ context: PassContext, globalScale: Float?) throws {
    guard let gptq = quantizer else { return }
    let numbers = try gptq.storedScheme(of: name, in: part)
    let quantized = RoundToNearest.quantize(
      part[name].weight.dense(), scheme: numbers, scales: gptq.scales, globalScale: globalScale)
    part[name].weight = quantized
    context.record(
      name, in: part,
      [
        "bits_per_weight": Double(quantized.storedBits) / Double(quantized.rows * quantized.columns),
        "sparsity": quantized.dense().zeroShare,
      ], scheme: "\(numbers) \(sparsityText)")
  }

  /// Wanda's choice, which needs no factorization, or that of the magnitudes, which needs no data.
  private func pruneWithoutHessian(
    _ name: LinearName, of part: inout any ModelPart, _ context: PassContext, share: Double, _ hessian: Hessian, globalScale: Float?
  ) throws {
    let rounded = quantizer == nil ? "" : ", and rounded to nearest"
    guard hessian.tokens > 0 else {
      try pruneByMagnitude(
        name, of: &part, context, share: share, because: "\(Unreached.reason): pruned by magnitude\(rounded)")
      return try roundPruned(name, of: &part, context, globalScale: globalScale)
    }
    let weight = part[name].weight.dense()
    let norms = hessian.matrix.diagonal.map { Float(max($0, 0).squareRoot()) }
    let mask = SparsityMask(scores: weight.magnitudes(times: norms), pattern: pattern, sparsity: share, comparing: .row)
    try keep(mask, of: name, in: &part, context, nil)
    try context.recordFallback(
      name, in: part,
      "the Hessian is not positive definite even when damped (\(hessian.tokens) calibration tokens for \(weight.columns) inputs): pruned by magnitude times input norm\(rounded)"
    )
    try roundPruned(name, of: &part, context, globalScale: globalScale)
  }
}
