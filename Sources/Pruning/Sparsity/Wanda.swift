public import Models
public import Passes
import Tensors

/// Wanda: removes the weights with the smallest |w|·‖x‖ (Sun et al. 2023, equation 1), by default inside every output.
///
/// Inputs are those behind the layers already pruned. What is kept stays as it is, unless `refit` asks for its least squares.
public struct Wanda: Sparsifier {
  public static let name = "wanda"
  public static let summary = "remove the weights with the smallest products of magnitude and input norm"

  public var sparsity: Double?
  public var pattern = SparsityPattern.unstructured
  public var comparison = ComparisonGroup.row
  public var allocation = SparsityAllocation.uniform
  public var owlThreshold = 5.0
  public var owlLimit = 0.08
  public var refit = false
  public var damping = 0.01
  public var layers = LayerSelector()

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case sparsity, pattern, comparison, allocation, owlThreshold = "owl_threshold", owlLimit = "owl_limit", refit, damping, layers
  }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { refit ? linears.widestInput(of: layers) : nil }

  public func validate() throws(InvalidOption) { try validateSparsity() }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    let share = try share(of: part, in: context)
    for group in part.groups(layers) {
      guard !(part is Embedding) else {
        for name in group.linears {
          try pruneByMagnitude(
            name, of: &part, context, share: share, because: "an embedding is looked up, so it has no inputs: pruned by magnitude")
        }
        continue
      }
      if refit {
        let hessian = try context.statistic(Hessian.self, of: group, in: part)
        guard hessian.tokens > 0 else {
          try pruneUnreached(group, of: &part, context, share: share)
          continue
        }
        let norms = hessian.matrix.diagonal.map { Float($0.squareRoot()) }
        let solver = SparseGPTSolver.prepare(hessian, pattern: .unstructured, isOrdered: false, damping: damping, refits: true)
        for name in group.linears { try prune(name, of: &part, context, share: share, norms: norms, solver) }
      } else {
        let norms = try context.statistic(InputNorm.self, of: group, in: part)
        guard norms.tokens > 0 else {
          try pruneUnreached(group, of: &part, context, share: share)
          continue
        }
        for name in group.linears { try prune(name, of: &part, context, share: share, norms: norms.values, nil) }
      }
    }
  }

  private func pruneUnreached(_ group: InputGroup, of part: inout any ModelPart, _ context: PassContext, share: Double) throws {
    for name in group.linears {
      try pruneByMagnitude(name, of: &part, context, share: share, because: "\(Unreached.reason): pruned by magnitude")
    }
  }

  private func prune(
    _ name: LinearName, of part: inout any ModelPart, _ context: PassContext, share: Double, norms: [Float], _ solver: PreparedSolver?
  ) throws {
    let weight = part[name].weight.dense()
    try checkFit(part.fullName(of: name), columns: weight.columns)
    let mask = SparsityMask(
      scores: weight.magnitudes(times: norms), pattern: pattern, sparsity: share, comparing: comparison)
    try keep(mask, of: name, in: &part, context, solver)
  }
}
