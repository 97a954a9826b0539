package import Models
import Tensors

/// How a solve chooses the weights that become zero while it goes along the columns.
package struct ZeroChoice: Sendable {
  package var pattern: SparsityPattern
  /// The share to remove where the pattern leaves that open.
  package var sparsity: Double
  /// What the square of a target is multiplied by to give the cost of its removal, by position.
  package var pivots: [Float]

  package init(pattern: SparsityPattern, sparsity: Double, pivots: [Float]) {
    (self.pattern, self.sparsity, self.pivots) = (pattern, sparsity, pivots)
  }

  /// - Parameter scores: of some outputs in a block of columns, or in one group of the pattern, or in several.
  func mask(_ scores: Matrix) -> SparsityMask {
    SparsityMask(scores: scores, pattern: pattern, sparsity: sparsity, comparing: .layer)
  }
}
