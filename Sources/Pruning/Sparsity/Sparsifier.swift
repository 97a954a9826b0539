package import Models
package import Passes
import Quantization
import Tensors

/// A pass that makes weights zero: the options all such passes share, and what follows from them.
package protocol Sparsifier: Pass {
  /// The share of weights to remove; by default half of them, or what the pattern prescribes.
  var sparsity: Double? { get set }
  var pattern: SparsityPattern { get }
  /// How the share of a block depends on the block.
  var allocation: SparsityAllocation { get }
  /// How many times its block's mean a score must be to count as an outlier (M in OWL's paper).
  var owlThreshold: Double { get }
  /// How far a block's share may lie from `sparsity` (λ in OWL's paper).
  var owlLimit: Double { get }
  /// Whether the kept weights are moved to the least squares of the layer's outputs.
  var refit: Bool { get }
  /// Added to the diagonal of the Hessian, as a fraction of its mean, where there is one.
  var damping: Double { get }
  var layers: LayerSelector { get }
}

/// Hessian factored and ready, or why not.
typealias PreparedSolver = Result<SparseGPTSolver, GPTQSolver.Failure>

extension Sparsifier {
  private var meanShare: Double { pattern.sparsity ?? sparsity ?? 0.5 }
  private var outliers: OutlierDistribution { OutlierDistribution(threshold: owlThreshold, layers: layers) }

  public var effective: Self {
    var copy = self
    copy.sparsity = meanShare
    return copy
  }

  public var analyses: [any Analysis] { allocation == .owl ? [outliers] : [] }

  /// The share of weights that a block is to lose.
  func share(of part: any ModelPart, in context: PassContext) throws -> Double {
    guard allocation == .owl, part is Block else { return meanShare }
    let answer = context.answer(to: outliers)
    for name in answer.entries.first(where: { $0.block == part.name })?.unreached ?? [] {
      try context.recordFallback(name, in: part, "\(Unreached.reason): its outliers do not count in the block's share")
    }
    return answer.share(of: part.name, target: meanShare, limit: owlLimit)
  }

  func validateSparsity() throws(InvalidOption) {
    if let sparsity {
      guard sparsity >= 0, sparsity < 1 else { throw InvalidOption("sparsity", "\(sparsity): a share of the weights, 0 to below 1") }
      if let prescribed = pattern.sparsity, abs(prescribed - sparsity) > 1e-6 {
        throw InvalidOption("sparsity", "\(sparsity): the pattern \(pattern) prescribes \(prescribed); leave one of them out")
      }
    }
    guard damping >= 0, damping < 10 else {
      throw InvalidOption("damping", "\(damping): a fraction of the Hessian's mean diagonal, 0 to 10")
    }
    guard allocation == .owl else { return }
    guard pattern == .unstructured else { throw InvalidOption("allocation", "owl gives every block another share; \(pattern) allows one") }
    guard owlThreshold > 0 else { throw InvalidOption("owl_threshold", "\(owlThreshold): a positive number") }
    guard owlLimit >= 0, meanShare - owlLimit >= 0, meanShare + owlLimit < 1 else {
      throw InvalidOption("owl_limit", "\(owlLimit): shares of \(meanShare) ± \(owlLimit) must lie between 0 and 1")
    }
  }

  /// In words, such as `2:4` or `50 % zeros`.
  var sparsityText: String { pattern == .unstructured ? "\(Int((meanShare * 100).rounded())) % zeros" : "\(pattern)" }

  /// - Throws: `InvalidOption` where the pattern's groups do not fill a row.
  func checkFit(_ name: String, columns: Int) throws(InvalidOption) {
    guard !pattern.fits(columns: columns) else { return }
    throw InvalidOption("pattern", "\(pattern) does not divide the \(columns) columns of \(name); leave it out by `layers: { exclude: … }`")
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    try checkFit(linear.name, columns: linear.columns)
    return planned(linear)
  }

  /// Zeros are stored like any other number: the bits are those of a dense weight.
  func planned(_ linear: PlannedLinear) -> PlannedLinear {
    var planned = linear
    planned.scheme = "\(linear.storageType.rawValue) \(sparsityText)"
    planned.storedBits = linear.rows * linear.columns * linear.storageType.bitCount
    (planned.weights, planned.input, planned.blocks) = (nil, nil, nil)
    planned.isRewritten = true
    return planned
  }

  /// Removes what a mask says and puts the result into the block and into the report.
  ///
  /// - Parameter solver: what the kept weights are refitted with; `nil` where they are not.
  func keep(_ mask: SparsityMask, of name: LinearName, in part: inout any ModelPart, _ context: PassContext, _ solver: PreparedSolver?)
    throws
  {
    let weight = part[name].weight.dense()
    var sparse = mask.applied(to: weight)
    var metrics = ["relative_weight_error": weight.relativeDistance(to: sparse)]
    if allocation == .owl { metrics["target_sparsity"] = mask.sparsity }
    var failure: String?
    switch solver {
    case nil: break
    case .success(let solver):
      // Good corrections in one sweep, from which the least squares are near.
      var solution = solver.prune(weight, mask: mask, pattern: pattern, sparsity: 0)
      solver.refit(&solution, toward: weight)
      sparse = solution.weight
      metrics = metrics.filter { $0.key != "relative_weight_error" }
      metrics["relative_layer_loss"] = solution.relativeLoss
      metrics["damping"] = solver.factorization.damping
      if solver.factorization.damping > damping {
        failure = "the Hessian was not positive definite: damping raised from \(damping) to \(solver.factorization.damping)"
      }
    case .failure(let reason):
      failure = "the Hessian is not positive definite even with damping \(reason.damping): the weights kept are not refitted"
    }
    part[name].weight = sparse
    metrics["sparsity"] = sparse.zeroShare
    context.record(name, in: part, metrics, scheme: sparsityText)
    if let failure { try context.recordFallback(name, in: part, failure) }
  }

  func pruneByMagnitude(
    _ name: LinearName, of part: inout any ModelPart, _ context: PassContext, share: Double, because reason: String
  ) throws {
    let weight = part[name].weight.dense()
    try checkFit(part.fullName(of: name), columns: weight.columns)
    let mask = SparsityMask(scores: weight.magnitudes(times: nil), pattern: pattern, sparsity: share, comparing: .row)
    try keep(mask, of: name, in: &part, context, nil)
    try context.recordFallback(name, in: part, reason)
  }
}

extension Matrix {
  /// |w|, times a factor per input.
  func magnitudes(times factors: [Float]?) -> Matrix {
    let (rows, columns) = (rows, columns)
    precondition((factors?.count ?? columns) == columns, "a factor for every input is needed")
    return Matrix(rows: rows, columns: columns) { out in
      withUnsafeElements { elements in
        for row in 0..<rows {
          let base = row * columns
          for column in 0..<columns { out[base + column] = abs(elements[base + column]) * (factors?[column] ?? 1) }
        }
      }
    }
  }

  /// ‖W − W'‖² / ‖W‖².
  func relativeDistance(to other: Matrix) -> Double {
    let count = elements.count
    return withUnsafeElements { own in
      let norm = Kernel.squaredDistance(own, nil, count: count)
      return norm > 0 ? other.withUnsafeElements { Kernel.squaredDistance(own, $0, count: count) } / norm : 0
    }
  }
}
