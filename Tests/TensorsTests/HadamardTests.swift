import Tensors
import TestSupport
import Testing

/// H itself: what the transform makes of the identity.
private func rows(of hadamard: Hadamard) -> [[Double]] {
  let order = hadamard.order
  var identity = (0..<order * order).map { $0 % (order + 1) == 0 ? 1.0 : 0 }
  identity.withUnsafeMutableBufferPointer { hadamard.transform($0.baseAddress!, count: order) }
  return (0..<order).map { Array(identity[$0 * order..<($0 + 1) * order]) }
}

private func normals(_ count: Int, _ key: String) -> [Double] {
  Matrix.random(rows: 1, columns: count, key: key).elements.map { Double($0) }
}

struct HadamardTests {
  @Test(arguments: (0...13).map { 1 << $0 }) func theFastTransformIsItsDefinition(_ count: Int) {
    let x = normals(min(count, 1024), "walsh")
    guard x.count == count else {
      // Beyond the reach of a double loop: twice is n times the identity.
      let x = normals(count, "walsh")
      var twice = x
      for _ in 0..<2 { Kernel.walshHadamard(&twice, count: count) }
      #expect(zip(twice, x).allSatisfy { abs($0 / Double(count) - $1) < 1e-13 })
      return
    }
    var found = x
    Kernel.walshHadamard(&found, count: count)
    #expect(zip(found, Reference.walshHadamard(x)).allSatisfy { abs($0 - $1) < 1e-11 })
  }

  /// Paley I over primes (12, 20, 24, 44, 60, 108, 140) and powers of them (28, 344), II over both (36, 76; 52, 100), products of all.
  @Test(arguments: [
    1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 40, 44, 48, 52, 60, 64, 76, 80, 84, 96, 100, 108, 112, 128, 140, 144, 240, 256, 344, 432, 576, 896,
  ]) func rowsAreOrthogonal(_ order: Int) throws {
    let rows = rows(of: try #require(Hadamard(order: order)))
    let matrix = Matrix(rows: order, columns: order, elements: rows.flatMap { $0.map { Float($0) } })
    #expect(matrix.elements.allSatisfy { abs($0) == 1 })
    // Sums of so few ±1 are exact in any order.
    let product = matrix.times(transposed: matrix).elements
    #expect(product.indices.allSatisfy { product[$0] == ($0 % (order + 1) == 0 ? Float(order) : 0) })
  }

  @Test func theTwelfthIsPaleys() throws {
    let rows = rows(of: try #require(Hadamard(order: 12)))
    let squares = Set((1..<11).map { $0 * $0 % 11 })
    for row in 0..<12 {
      for column in 0..<12 {
        let character = row == column ? 1.0 : row == 0 ? 1 : column == 0 ? -1 : squares.contains((row - column + 11) % 11) ? 1 : -1
        #expect(rows[row][column] == character)
      }
    }
  }

  @Test(arguments: [12, 24, 36, 144, 240, 896]) func transformsOfRowsAreDenseProducts(_ order: Int) throws {
    let hadamard = try #require(Hadamard(order: order))
    let (dense, x) = (rows(of: hadamard), normals(3 * order, "rows"))
    var found = x
    found.withUnsafeMutableBufferPointer { hadamard.transform($0.baseAddress!, count: 3) }
    for row in 0..<3 {
      for column in 0..<order {
        let exact = (0..<order).reduce(0.0) { $0 + x[row * order + $1] * dense[$1][column] }
        #expect(abs(found[row * order + column] - exact) < 1e-11)
      }
    }
  }

  @Test func ordersThatAreNotKnownAreNotInvented() {
    for order in [-4, 0, 3, 5, 6, 7, 10, 11, 18, 92, 116, 156, 172, 184] { #expect(Hadamard(order: order) == nil, "\(order)") }
    #expect(Hadamard(order: 144)?.factors.paley == [12, 12])
    #expect(Hadamard(order: 14336).map { $0.factors == ([28], 512) } == true)
    #expect(Hadamard(order: 11008).map { $0.factors == ([344], 32) } == true)
  }

  @Test func theLargestOrderDivides() {
    for (size, order) in [(1, 1), (2, 2), (7, 1), (46, 2), (64, 64), (80, 80), (96, 96), (172, 4), (368, 368), (4096, 4096), (1000, 1000)] {
      #expect(Hadamard.largestOrder(dividing: size) == order, "\(size)")
    }
  }
}

struct OrthogonalMatrixTests {
  private func elements(_ matrix: OrthogonalMatrix) -> [Double] {
    let size = matrix.size
    var identity = (0..<size * size).map { $0 % (size + 1) == 0 ? 1.0 : 0 }
    identity.withUnsafeMutableBufferPointer { matrix.transform($0.baseAddress!, count: size) }
    return identity
  }

  private func matrices(_ size: Int) -> [OrthogonalMatrix] {
    var random = KeyedRandomness(seed: 3, key: "orthogonal")
    return [.hadamard(size: size, using: &random), .random(size: size, using: &random)]
  }

  @Test(arguments: [1, 2, 3, 7, 12, 32, 46, 80, 96, 130, 256]) func rowsAndColumnsAreOrthonormal(_ size: Int) {
    for matrix in matrices(size) {
      let q = elements(matrix)
      var worst = 0.0
      for i in 0..<size {
        for j in 0...i {
          let rows = (0..<size).reduce(0.0) { $0 + q[i * size + $1] * q[j * size + $1] }
          let columns = (0..<size).reduce(0.0) { $0 + q[$1 * size + i] * q[$1 * size + j] }
          worst = max(worst, abs(rows - (i == j ? 1 : 0)), abs(columns - (i == j ? 1 : 0)))
        }
      }
      #expect(worst < 1e-12)
    }
  }

  @Test func blocksStandOnTheDiagonalWhereNoOrderFits() {
    let matrix = matrices(46)[0]
    #expect(matrix.hadamardOrder == 2)
    let q = elements(matrix)
    for i in 0..<46 { for j in 0..<46 { #expect((q[i * 46 + j] != 0) == (i / 2 == j / 2)) } }
    #expect(matrices(46)[1].hadamardOrder == nil)
    #expect(matrices(96)[0].hadamardOrder == 96)
  }

  @Test func drawsFollowTheGenerator() {
    for kind in [0, 1] {
      #expect(elements(matrices(24)[kind]) == elements(matrices(24)[kind]))
      var other = KeyedRandomness(seed: 4, key: "orthogonal")
      let fresh = kind == 0 ? OrthogonalMatrix.hadamard(size: 24, using: &other) : .random(size: 24, using: &other)
      #expect(elements(fresh) != elements(matrices(24)[kind]))
    }
  }

  /// Uniform over the group: entries have the variance 1/n and no preferred sign, the first one included, which a QR decomposition alone
  /// makes one-sided.
  @Test func randomOnesAreUniform() {
    var random = KeyedRandomness(seed: 5, key: "uniform")
    let firsts = (0..<400).map { _ in elements(.random(size: 8, using: &random))[0] }
    let (mean, square) = (firsts.reduce(0, +) / 400, firsts.reduce(0) { $0 + $1 * $1 } / 400)
    #expect(abs(mean) < 4 * (1.0 / 8 / 400).squareRoot())
    #expect(abs(square - 1.0 / 8) < 0.03)
  }

  @Test(arguments: [(5, 1), (33, 40), (300, 3)]) func productsAreTheDoubleLoopOnAnyNumberOfThreads(_ rows: Int, _ more: Int) {
    let blocks = matrices(12) + matrices(more)
    let size = blocks.reduce(0) { $0 + $1.size }
    var q = [Double](repeating: 0, count: size * size)
    var start = 0
    for block in blocks {
      let part = elements(block)
      for i in 0..<block.size { for j in 0..<block.size { q[(start + i) * size + start + j] = part[i * block.size + j] } }
      start += block.size
    }
    let (x, scale) = (Matrix.random(rows: rows, columns: size, key: "x"), Matrix.random(rows: 1, columns: size, key: "scale").elements)
    func product(_ width: Int) -> Matrix { Parallel.$width.withValue(width) { x.times(blocks, scaling: scale) } }
    let (found, left) = (product(1), x.transposed().multiplied(onTheLeftByTransposeOf: blocks))
    #expect(found == product(3))
    for row in 0..<rows {
      for column in 0..<size {
        let plain = (0..<size).reduce(0.0) { $0 + Double(x[row, $1]) * q[$1 * size + column] }
        let scaled = (0..<size).reduce(0.0) { $0 + Double(x[row, $1]) * Double(scale[$1]) * q[$1 * size + column] }
        #expect(abs(Double(found[row, column]) - scaled) <= 1e-6 * max(1, abs(scaled)))
        #expect(abs(Double(left[column, row]) - plain) <= 1e-6 * max(1, abs(plain)))
      }
    }
  }
}
