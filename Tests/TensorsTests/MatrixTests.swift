import Tensors
import TestSupport
import Testing

struct MatrixTests {
  @Test(arguments: [(1, 1, 1), (3, 5, 7), (17, 33, 16), (64, 130, 31), (1, 300, 257)])
  func timesIsTheDoubleLoop(_ rows: Int, _ inner: Int, _ columns: Int) {
    let (a, b) = (Matrix.random(rows: rows, columns: inner, key: "a"), Matrix.random(rows: columns, columns: inner, key: "b"))
    let product = a.times(transposed: b)
    #expect(product.rows == rows && product.columns == columns)
    for row in 0..<rows {
      for column in 0..<columns {
        let exact = (0..<inner).reduce(0.0) { $0 + Double(a[row, $1]) * Double(b[column, $1]) }
        #expect(abs(Double(product[row, column]) - exact) < 1e-6 * Double(inner).squareRoot() + 1e-5)
      }
    }
  }

  @Test func timesOfNothing() {
    #expect(Matrix(rows: 0, columns: 3).times(transposed: Matrix(rows: 2, columns: 3)).elements.isEmpty)
    #expect(Matrix(rows: 2, columns: 3).times(transposed: Matrix(rows: 0, columns: 3)).elements.isEmpty)
  }

  @Test(arguments: [(1, 1), (1, 40), (31, 33), (64, 32), (100, 7)]) func transposedMirrors(_ rows: Int, _ columns: Int) {
    let matrix = Matrix.random(rows: rows, columns: columns, key: "transpose")
    let mirrored = matrix.transposed()
    #expect(mirrored.rows == columns && mirrored.columns == rows)
    for row in 0..<rows { for column in 0..<columns { #expect(mirrored[column, row] == matrix[row, column]) } }
    #expect(mirrored.transposed() == matrix)
  }

  @Test func rowsAreCutAndStacked() {
    let matrix = Matrix(rows: 4, columns: 2, elements: [0, 1, 2, 3, 4, 5, 6, 7])
    #expect(matrix.rows(1..<3) == Matrix(rows: 2, columns: 2, elements: [2, 3, 4, 5]))
    #expect(Matrix(stacking: [matrix.rows(0..<1), matrix.rows(1..<1), matrix.rows(1..<4)]) == matrix)
    #expect(Matrix(stacking: []).rows == 0)
  }

  @Test(arguments: [1, 2, 3]) func everyRowIsVisitedOnce(_ width: Int) {
    for (rows, columns) in [(0, 3), (1, 1), (5, 70_000), (3000, 40), (7, 0)] {
      var matrix = Matrix(rows: rows, columns: columns)
      Parallel.$width.withValue(width) {
        matrix.updateRows { row, elements in for column in 0..<elements.count { elements[column] += Float(row * 3 + column % 5 + 1) } }
      }
      for index in matrix.elements.indices where matrix.elements[index] != Float(index / columns * 3 + index % columns % 5 + 1) {
        Issue.record("element \(index) of [\(rows) × \(columns)]")
      }
    }
  }
}
