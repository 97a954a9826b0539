public import Models
public import Passes
package import Tensors

/// A low-rank branch beside every quantized weight, which gives back the part of the error that matters most to the outputs.
///
/// Minimises tr((E − A·B)·G·(E − A·B)ᵀ) for the error E = W − Q and the inputs' second moment G, the exact solution of QERA (Zhang et al. 2024)
/// to the problem that LQER (Zhang et al. 2024) posed. With G = L·Lᵀ the best approximation of E·L has the left singular vectors U of E·L, so
/// that A = U and B = Uᵀ·E: no root and no inverse of G is needed.
public struct LQER: Pass {
  public static let name = "lqer"
  public static let summary = "low-rank correction of quantized weights (QERA)"

  public var rank = 32
  public var layers = LayerSelector()

  public init() {}

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { linears.widestInput(of: layers) }

  public func validate() throws(InvalidOption) {
    guard rank > 0 else { throw InvalidOption("rank", "\(rank): a positive number") }
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    guard !(part is Embedding) else { return }
    for group in part.groups(layers) {
      var hessian = try context.statistic(Hessian.self, of: group, in: part)
      let isUnreached = hessian.tokens == 0
      if isUnreached { hessian = .identity(features: hessian.matrix.size) }
      for name in group.linears {
        let linear = part[name]
        if isUnreached { try context.recordFallback(name, in: part, "\(Unreached.reason): corrected by plain SVD") }
        guard rank < min(linear.weight.rows, linear.weight.columns) else {
          throw InvalidOption(
            "rank", "\(rank) is not below the \(linear.weight.rows)×\(linear.weight.columns) of \(part.fullName(of: name))")
        }
        var error = context.reference[name].weight.dense()
        error.subtract(linear.weight.dense())
        guard let correction = Self.correction(of: error, hessian: hessian, rank: rank, storageType: linear.storageType) else {
          try context.recordFallback(name, in: part, "the second moment of its inputs has no factor: left without a correction")
          continue
        }
        let before = hessian.loss(of: error)
        error.subtract(correction.dense())
        let weight = SumOfWeights([linear.weight, correction])
        part[name].weight = weight
        context.record(
          name, in: part,
          [
            "rank": Double(rank), "bits_per_weight": Double(weight.storedBits) / Double(weight.rows * weight.columns),
            "remaining_loss": before > 0 ? hessian.loss(of: error) / before : 0,
          ])
      }
    }
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    var planned = linear
    planned.storedBits += rank * (linear.rows + linear.columns) * linear.storageType.bitCount
    planned.scheme += " + rank \(rank)"
    planned.hasBranch = true
    return planned
  }

  /// The best matrix of the given rank under the inputs' second moment, factors rounded as they will be stored.
  ///
  /// - Returns: `nil` where no damping makes the second moment positive definite.
  static func correction(of error: Matrix, hessian: Hessian, rank: Int, storageType: DType) -> LowRankMatrix? {
    let diagonal = hessian.matrix.diagonal
    let mean = diagonal.reduce(0, +) / Double(max(1, diagonal.count))
    guard let factor = hessian.matrix.upperFactor(shift: 1e-4 * max(mean, .leastNormalMagnitude)) else { return nil }
    // L = U·√D: its columns are those of the unit factor, scaled.
    var root = factor.unitUpper
    let scales = factor.pivots.map { Float($0.squareRoot()) }
    root.updateRows { _, row in for column in row.indices { row[column] *= scales[column] } }
    let product = error.times(transposed: root.transposed())
    guard let left = product.leadingLeftSingularVectors(rank) else { return nil }
    let right = left.transposed().times(transposed: error.transposed())
    return LowRankMatrix(left: left.rounded(to: storageType), right: right.rounded(to: storageType), storageType: storageType)
  }
}

extension Hessian {
  /// What inputs of which nothing is known are taken for: all alike, none like another.
  package static func identity(features: Int) -> Hessian {
    var matrix = SymmetricMatrix(size: features)
    for index in 0..<features { matrix[index, index] = 1 }
    return Hessian(matrix, tokens: 0)
  }

  /// tr(E·H·Eᵀ) for E [outputs × features].
  func loss(of error: Matrix) -> Double {
    let dense = Matrix(rows: matrix.size, columns: matrix.size) { out in
      for row in 0..<matrix.size { for column in 0..<matrix.size { out[row * matrix.size + column] = Float(matrix[row, column]) } }
    }
    let product = error.times(transposed: dense)
    return zip(product.elements, error.elements).reduce(0) { $0 + Double($1.0) * Double($1.1) }
  }
}

extension Matrix {
  package mutating func subtract(_ other: Matrix) {
    var negative = other
    negative.updateRows { _, row in for column in row.indices { row[column] = -row[column] } }
    add(negative)
  }

  func rounded(to type: DType) -> Matrix {
    var result = self
    result.updateRows { _, row in for column in row.indices { row[column] = type.rounded(row[column]) } }
    return result
  }

  /// The left singular vectors of the `count` largest singular values, as columns [rows × count].
  ///
  /// From the eigenvectors of the smaller of the two Gram matrices, in double precision: half the digits are lost, and a correction needs few.
  func leadingLeftSingularVectors(_ count: Int) -> Matrix? {
    let onRows = rows <= columns
    let side = onRows ? transposed() : self
    var gram = SymmetricMatrix(size: side.columns)
    gram.addGram(of: side)
    guard let vectors = gram.leadingEigenvectors(count) else { return nil }
    if onRows { return vectors.transposed() }
    // U = M·V / σ.
    var left = times(transposed: vectors)
    let norms = (0..<count).map { column in
      (0..<rows).reduce(0.0) { $0 + Double(left[$1, column]) * Double(left[$1, column]) }.squareRoot()
    }
    left.updateRows { _, row in for column in row.indices { row[column] = norms[column] > 0 ? row[column] / Float(norms[column]) : 0 } }
    return left
  }
}
