public import Models
public import Passes
import Tensors

/// Removes the weights with the smallest magnitudes (Han et al. 2015): the baseline of all others, and it needs no data.
///
/// With `refit`, which does, the weights kept make up for those removed as well as the calibration data allows.
public struct Magnitude: Sparsifier {
  public static let name = "magnitude"
  public static let summary = "remove the weights with the smallest magnitudes"

  public var sparsity: Double?
  public var pattern = SparsityPattern.unstructured
  /// The weights that compete; a pattern compares inside its groups.
  public var comparison = ComparisonGroup.layer
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

  public var usesCalibration: Bool { refit || allocation == .owl }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { refit ? linears.widestInput(of: layers) : nil }

  public func validate() throws(InvalidOption) { try validateSparsity() }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    let share = try share(of: part, in: context)
    for group in part.groups(layers) {
      let refits = refit && !(part is Embedding)
      let hessian = try refits ? context.statistic(Hessian.self, of: group, in: part) : nil
      let isUnreached = hessian?.tokens == 0
      let solver = (isUnreached ? nil : hessian).map {
        SparseGPTSolver.prepare($0, pattern: .unstructured, isOrdered: false, damping: damping, refits: true)
      }
      for name in group.linears {
        let weight = part[name].weight.dense()
        try checkFit(part.fullName(of: name), columns: weight.columns)
        let mask = SparsityMask(scores: weight.magnitudes(times: nil), pattern: pattern, sparsity: share, comparing: comparison)
        try keep(mask, of: name, in: &part, context, solver)
        if isUnreached { try context.recordFallback(name, in: part, "\(Unreached.reason): the weights kept are not refitted") }
        if refit, !refits {
          try context.recordFallback(name, in: part, "an embedding is looked up, so there is nothing to refit it to")
        }
      }
    }
  }
}
