import Tensors

/// A normalised Hadamard matrix that every head is multiplied by before it is cached: what stands out in one channel is spread over all.
///
/// Queries are multiplied alike, so scores stay what they are; what attention makes of the values is multiplied back.
struct HeadRotation: Sendable {
  private let size: Int
  /// [size × size], orthogonal.
  private let elements: [Float]

  /// `nil` for a size without a known Hadamard matrix.
  init?(size: Int) {
    guard let hadamard = Hadamard(order: size) else { return nil }
    self.size = size
    var rows = [Double](repeating: 0, count: size * size)
    for index in 0..<size { rows[index * (size + 1)] = 1 / Double(size).squareRoot() }
    rows.withUnsafeMutableBufferPointer { hadamard.transform($0.baseAddress!, count: size) }
    elements = rows.map { Float($0) }
  }

  /// Every stretch of `size` numbers times the matrix, or its transpose.
  func applied(to states: Matrix, inverse: Bool = false) -> Matrix {
    Matrix(rows: states.rows, columns: states.columns) { out in
      states.withUnsafeElements { states in
        BLAS.product(
          states, stride: size, elements, stride: size, rightTransposed: inverse, rows: out.count / size, columns: size, inner: size,
          into: out.baseAddress!, stride: size)
      }
    }
  }
}
