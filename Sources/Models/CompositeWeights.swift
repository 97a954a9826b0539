public import Tensors

/// A product of two thin matrices: left [rows × rank] · right [rank × columns].
public struct LowRankMatrix: Weight {
  public let left: Matrix
  public let right: Matrix
  /// What the factors are stored as.
  public let storageType: DType

  public init(left: Matrix, right: Matrix, storageType: DType = .bfloat16) {
    precondition(left.columns == right.rows, "the factors' ranks differ")
    self.left = left
    self.right = right
    self.storageType = storageType
  }

  public var rows: Int { left.rows }
  public var columns: Int { right.columns }
  public var rank: Int { left.columns }
  public var storedBits: Int { rank * (rows + columns) * storageType.bitCount }
  public func dense() -> Matrix { left.times(transposed: right.transposed()) }
}

/// Weights that add up, such as codes and a low-rank correction of what they got wrong.
public struct SumOfWeights: Weight {
  public let terms: [any Weight]

  /// - Precondition: at least one term, all of one shape.
  public init(_ terms: [any Weight]) {
    precondition(Set(terms.map { [$0.rows, $0.columns] }).count == 1, "the terms' shapes differ")
    self.terms = terms
  }

  public var rows: Int { terms[0].rows }
  public var columns: Int { terms[0].columns }
  public var storedBits: Int { terms.reduce(0) { $0 + $1.storedBits } }

  public func dense() -> Matrix {
    var sum = terms[0].dense()
    for term in terms.dropFirst() { sum.add(term.dense()) }
    return sum
  }
}
