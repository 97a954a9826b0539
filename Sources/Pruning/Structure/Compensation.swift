internal import Models
internal import Tensors

/// How what reads pruned inputs makes up for them.
public enum Compensation: String, Sendable, Codable, CaseIterable {
  case none
  /// The mean of what is missing becomes a bias (FLAP, An et al. 2024, equation 6); the model must have a place for it.
  case bias
  /// The remaining weights become those of least squares on the remaining inputs (algorithm notes 12.5).
  case leastSquares = "least_squares"

  struct Result {
    /// [outputs × inputs that stay].
    var weight: Matrix
    /// What is added to the layer's bias.
    var bias: [Float]?
    /// ‖error‖² of the outputs over that of the outputs, over the calibration tokens.
    var relativeLoss: Double
    /// The same had nothing been made up for.
    var relativeLossWithout: Double
  }

  /// - Parameter kept: inputs that stay, ascending.
  /// - Returns: `nil` where least squares has no solution in double precision.
  func apply(to weight: Matrix, keeping kept: [Int], _ moments: ChannelMoments, damping: Double) -> Result? {
    let plain = weight.selecting(columns: kept)
    let whole = weight.quadraticForm(moments.matrix)
    func share(_ loss: Double) -> Double { whole > 0 ? max(0, loss) / whole : 0 }
    let dropped = weight.missing(kept, replacing: plain)
    let lossWithout = dropped.quadraticForm(moments.matrix)
    switch self {
    case .none: return Result(weight: plain, relativeLoss: share(lossWithout), relativeLossWithout: share(lossWithout))
    case .bias:
      let means = moments.means
      let bias = (0..<weight.rows).map { row in
        means.indices.reduce(0.0) { $0 + Double(dropped[row, $1]) * means[$1] }
      }
      let loss = lossWithout - Double(moments.tokens) * bias.reduce(0) { $0 + $1 * $1 }
      return Result(weight: plain, bias: bias.map { Float($0) }, relativeLoss: share(loss), relativeLossWithout: share(lossWithout))
    case .leastSquares:
      guard let solved = weight.leastSquares(keeping: kept, moment: moments.matrix, damping: damping) else { return nil }
      let loss = weight.missing(kept, replacing: solved).quadraticForm(moments.matrix)
      return Result(weight: solved, relativeLoss: share(loss), relativeLossWithout: share(lossWithout))
    }
  }
}

extension Matrix {
  /// self − (other on the columns `kept`, zero elsewhere).
  func missing(_ kept: [Int], replacing other: Matrix) -> Matrix {
    var difference = self
    for row in 0..<rows { for (place, column) in kept.enumerated() { difference[row, column] -= other[row, place] } }
    return difference
  }

  /// tr(self · moment · selfᵀ), in double.
  func quadraticForm(_ moment: SymmetricMatrix) -> Double {
    let (columns, rows, strip) = (columns, rows, 32)
    let full = moment.elements(rows: Array(0..<columns), columns: Array(0..<columns))
    let wide = elements.map { Double($0) }
    let parts: [Double] = Parallel.map((rows + strip - 1) / strip) { index in
      let (first, count) = (index * strip, min(strip, rows - index * strip))
      return wide.withUnsafeBufferPointer { wide in
        full.withUnsafeBufferPointer { full in
          withUnsafeTemporaryAllocation(of: Double.self, capacity: count * columns) { product in
            guard let a = wide.baseAddress, let b = full.baseAddress, let c = product.baseAddress else { return 0 }
            BLAS.product(
              a + first * columns, stride: columns, b, stride: columns, rows: count, columns: columns, inner: columns, into: c,
              stride: columns)
            return (0..<count * columns).reduce(0) { $0 + c[$1] * a[first * columns + $1] }
          }
        }
      }
    }
    return parts.reduce(0, +)
  }
}
