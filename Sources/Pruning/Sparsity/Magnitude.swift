public import Models
public import Passes
import Tensors

/// Removes the weights with the smallest magnitudes (Han et al. 2015): the baseline of all others, and it needs no data.
public struct Magnitude: Sparsifier {
  public static let name = "magnitude"
  public static let summary = "remove the weights with the smallest magnitudes"

  public var sparsity: Double?
  public var pattern = SparsityPattern.unstructured
  /// The weights that compete; a pattern compares inside its groups.
  public var comparison = ComparisonGroup.layer
  public var layers = LayerSelector()

  public init() {}

  public var usesCalibration: Bool { false }

  public func validate() throws(InvalidOption) { try validateSparsity() }

  public func run(on block: inout Block, in context: PassContext) throws {
    for name in block.groups(layers).flatMap(\.linears) {
      let weight = block[name].weight.dense()
      try checkFit(block.fullName(of: name), columns: weight.columns)
      let magnitudes = Matrix(rows: weight.rows, columns: weight.columns, elements: weight.elements.map { abs($0) })
      let sparse = SparsityMask(scores: magnitudes, pattern: pattern, sparsity: share, comparing: comparison).applied(to: weight)
      block[name].weight = sparse
      context.record(
        name, in: block, ["sparsity": sparse.zeroShare, "relative_weight_error": weight.relativeDistance(to: sparse)],
        scheme: sparsityText)
    }
  }
}
