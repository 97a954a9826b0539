import Models
import Tensors

/// A row-major matrix in double precision: what spectra are computed in.
struct DoubleMatrix: Sendable, Equatable {
  let rows: Int
  let columns: Int
  var elements: [Double]

  init(rows: Int, columns: Int, elements: [Double]) {
    precondition(elements.count == rows * columns, "elements do not fill the shape")
    self.rows = rows
    self.columns = columns
    self.elements = elements
  }

  init(_ matrix: Matrix) { self.init(rows: matrix.rows, columns: matrix.columns, elements: matrix.elements.map { Double($0) }) }

  init(_ matrix: SymmetricMatrix) {
    let size = matrix.size
    var elements = [Double](repeating: 0, count: size * size)
    for row in 0..<size { for column in 0..<size { elements[row * size + column] = matrix[row, column] } }
    self.init(rows: size, columns: size, elements: elements)
  }

  init(diagonal: [Double]) {
    let size = diagonal.count
    self.init(rows: size, columns: size, elements: [Double](repeating: 0, count: size * size))
    for index in 0..<size { elements[index * size + index] = diagonal[index] }
  }

  init(stacking matrices: [DoubleMatrix]) {
    precondition(Set(matrices.map(\.columns)).count == 1, "stacked matrices differ in width")
    self.init(
      rows: matrices.reduce(0) { $0 + $1.rows }, columns: matrices[0].columns, elements: matrices.flatMap(\.elements))
  }

  subscript(row: Int, column: Int) -> Double {
    get { elements[row * columns + column] }
    set { elements[row * columns + column] = newValue }
  }

  func rows(_ range: Range<Int>) -> DoubleMatrix {
    DoubleMatrix(
      rows: range.count, columns: columns, elements: Array(elements[range.lowerBound * columns..<range.upperBound * columns]))
  }

  func transposed() -> DoubleMatrix {
    var result = DoubleMatrix(rows: columns, columns: rows, elements: [Double](repeating: 0, count: elements.count))
    for row in 0..<rows { for column in 0..<columns { result.elements[column * rows + row] = elements[row * columns + column] } }
    return result
  }

  /// With a fraction of the diagonal's mean added to the diagonal.
  func damped(by fraction: Double) -> DoubleMatrix {
    var result = self
    let shift = fraction * (0..<rows).reduce(0.0) { $0 + self[$1, $1] } / Double(max(1, rows))
    for index in 0..<rows { result[index, index] += shift }
    return result
  }

  func scaled(by factor: Double) -> DoubleMatrix {
    DoubleMatrix(rows: rows, columns: columns, elements: elements.map { $0 * factor })
  }

  /// self · other; strips of rows are computed at the same time.
  func times(_ other: DoubleMatrix) -> DoubleMatrix {
    precondition(columns == other.rows, "inner dimensions differ")
    var result = [Double](repeating: 0, count: rows * other.columns)
    guard rows > 0, other.columns > 0, columns > 0 else { return DoubleMatrix(rows: rows, columns: other.columns, elements: result) }
    let strip = 64
    result.withUnsafeMutableBufferPointer { out in
      elements.withUnsafeBufferPointer { left in
        other.elements.withUnsafeBufferPointer { right in
          nonisolated(unsafe) let (out, left, right) = (out.baseAddress!, left.baseAddress!, right.baseAddress!)
          Parallel.forEach((rows + strip - 1) / strip) { index in
            let first = index * strip
            BLAS.product(
              left + first * columns, stride: columns, right, stride: other.columns, rows: min(strip, rows - first),
              columns: other.columns, inner: columns, into: out + first * other.columns, stride: other.columns)
          }
        }
      }
    }
    return DoubleMatrix(rows: rows, columns: other.columns, elements: result)
  }

  /// Eigenvalues of a symmetric matrix, largest first and none below zero, and its eigenvectors in that order as rows.
  ///
  /// - Returns: `nil` where LAPACK's iteration did not converge.
  func eigenvectors() -> (values: [Double], vectors: DoubleMatrix)? {
    precondition(rows == columns, "a square matrix is needed")
    var vectors = elements
    guard let values = BLAS.symmetricEigenvectors(&vectors, size: rows) else { return nil }
    let order = Array((0..<rows).reversed())
    return (
      order.map { max(0, values[$0]) },
      DoubleMatrix(rows: rows, columns: rows, elements: order.flatMap { vectors[$0 * rows..<($0 + 1) * rows] })
    )
  }

  /// tr(self · moment · selfᵀ): the squared size of what this weight makes of inputs with the given second moment.
  func energy(under moment: DoubleMatrix) -> Double {
    zip(times(moment).elements, elements).reduce(0) { $0 + $1.0 * $1.1 }
  }

  func subtracting(_ other: DoubleMatrix) -> DoubleMatrix {
    DoubleMatrix(rows: rows, columns: columns, elements: zip(elements, other.elements).map { $0 - $1 })
  }

  /// In the arithmetic's type, as numbers of the type they will be stored in.
  func stored(as type: DType) -> Matrix {
    Matrix(rows: rows, columns: columns, elements: elements.map { type.rounded(Float($0)) })
  }
}
