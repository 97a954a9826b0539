import Tensors

/// A normalised Hadamard matrix that every head is multiplied by before it is cached: what stands out in one channel is spread over all.
///
/// Queries are multiplied alike, so scores stay what they are; what attention makes of the values is multiplied back.
struct HeadRotation: Sendable {
  private let size: Int
  private let hadamard: Hadamard
  /// [size × size], orthogonal.
  private let elements: [Float]

  /// `nil` for a size without a known Hadamard matrix.
  init?(size: Int) {
    guard let hadamard = Hadamard(order: size) else { return nil }
    self.size = size
    self.hadamard = hadamard
    var rows = [Double](repeating: 0, count: size * size)
    for index in 0..<size { rows[index * (size + 1)] = 1 / Double(size).squareRoot() }
    rows.withUnsafeMutableBufferPointer { hadamard.transform($0.baseAddress!, count: size) }
    elements = rows.map { Float($0) }
  }

  /// Every stretch of `size` numbers times the matrix; each by itself, so that the result does not depend on what comes with it.
  func applied(to states: Matrix) -> Matrix {
    Matrix(rows: states.rows, columns: states.columns) { out in
      let scale = 1 / Double(size).squareRoot()
      withUnsafeTemporaryAllocation(of: Double.self, capacity: size) { stretch in
        for start in stride(from: 0, to: out.count, by: size) {
          for index in 0..<size { stretch[index] = scale * Double(states.elements[start + index]) }
          hadamard.transform(stretch.baseAddress!, count: 1)
          for index in 0..<size { out[start + index] = Float(stretch[index]) }
        }
      }
    }
  }

  /// Every stretch times the transpose.
  func undone(in states: Matrix) -> Matrix {
    Matrix(rows: states.rows, columns: states.columns) { out in
      states.withUnsafeElements { states in
        BLAS.product(
          states, stride: size, elements, stride: size, rightTransposed: true, rows: out.count / size, columns: size, inner: size,
          into: out.baseAddress!, stride: size)
      }
    }
  }
}
