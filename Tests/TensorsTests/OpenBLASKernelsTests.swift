import Testing

@testable import Tensors

@Suite struct OpenBLASKernelsTests {
  /// A processor with wide vectors must not get the kernels for one without, whether OpenBLAS knows its model or not.
  @Test func wideVectorsAreUsed() {
    let ones = Matrix(rows: 2, columns: 2, elements: [1, 1, 1, 1])
    #expect(ones.times(transposed: ones).elements == [2, 2, 2, 2])
    #expect(Kernel.instructionSet == "baseline" || OpenBLASKernels.name != "Prescott")
  }

  @Test(arguments: [(1, 1, 1), (3, 65, 17), (64, 64, 64), (129, 33, 300), (200, 250, 513)])
  func productsAreThoseOfDoublePrecision(rows: Int, columns: Int, inner: Int) {
    var generator = KeyedRandomness(seed: 4, key: "products")
    func random(_ rows: Int) -> Matrix {
      Matrix(rows: rows, columns: inner, elements: (0..<rows * inner).map { _ in Float.random(in: -1...1, using: &generator) })
    }
    let (a, b) = (random(rows), random(columns))
    let product = a.times(transposed: b)
    for row in 0..<rows {
      for column in 0..<columns {
        let exact = (0..<inner).reduce(0.0) { $0 + Double(a[row, $1]) * Double(b[column, $1]) }
        #expect(abs(Double(product[row, column]) - exact) < 1e-5 * Double(inner))
      }
    }
  }
}
