import Tensors

/// A weight's rows, a few at a time: what works row by row need not hold all of a weight as floats.
package struct WeightRows: Sendable {
  package let rows: Int
  package let columns: Int
  private let source: Source

  private enum Source {
    case matrix(Matrix)
    case stored(StoredWeight)
  }

  package init(_ weight: any Weight) {
    (rows, columns) = (weight.rows, weight.columns)
    if let stored = weight as? StoredWeight, stored.liesInRows { source = .stored(stored) } else { source = .matrix(weight.dense()) }
  }

  /// - Parameter body: is given the rows of `range`, one after the other.
  package func withUnsafeRows<Result>(_ range: Range<Int>, _ body: (UnsafePointer<Float>) throws -> Result) rethrows -> Result {
    switch source {
    case .matrix(let matrix): try matrix.withUnsafeElements { try body($0 + range.lowerBound * columns) }
    case .stored(let stored): try stored.dense(rows: range).withUnsafeElements(body)
    }
  }
}
