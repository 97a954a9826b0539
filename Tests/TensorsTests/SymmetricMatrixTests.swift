import Tensors
import TestSupport
import Testing

struct SymmetricMatrixTests {
  @Test(arguments: [(1, 1), (5, 3), (127, 20), (128, 1), (129, 40), (300, 37), (1030, 9)])
  func gramIsTheDoubleLoopOnAnyNumberOfThreads(_ size: Int, _ tokens: Int) {
    let x = Matrix.random(rows: tokens, columns: size, key: "gram")
    func gram(_ width: Int) -> SymmetricMatrix {
      Parallel.$width.withValue(width) {
        var matrix = SymmetricMatrix(size: size)
        matrix.addGram(of: x)
        return matrix
      }
    }
    let matrix = gram(1)
    #expect(matrix == gram(2))
    #expect(matrix == gram(5))
    var worst = 0.0
    for row in 0..<size {
      for column in 0...row {
        let exact = (0..<tokens).reduce(0.0) { $0 + Double(x[$1, row]) * Double(x[$1, column]) }
        worst = max(worst, abs(matrix[row, column] - exact))
      }
    }
    #expect(worst < 1e-6 * Double(tokens) + 1e-6)
  }

  @Test func batchesAddUpInDouble() {
    let x = Matrix.random(rows: 64, columns: 9, key: "batches")
    var (whole, parts, other) = (SymmetricMatrix(size: 9), SymmetricMatrix(size: 9), SymmetricMatrix(size: 9))
    whole.addGram(of: x)
    for start in stride(from: 0, to: 32, by: 8) { parts.addGram(of: x.rows(start..<start + 8)) }
    other.addGram(of: x.rows(32..<64))
    parts += other
    for row in 0..<9 { for column in 0..<9 { #expect(abs(whole[row, column] - parts[row, column]) < 1e-4) } }
    // A total of 2²⁴ takes up another 1, which a Float would not.
    var total = SymmetricMatrix(size: 1)
    total.addGram(of: Matrix(rows: 1, columns: 1, elements: [4096]))
    total.addGram(of: Matrix(rows: 1, columns: 1, elements: [1]))
    #expect(total[0, 0] == 16_777_217)
  }

  @Test func bothTrianglesAreOne() {
    var matrix = SymmetricMatrix(size: 3)
    matrix[0, 2] = 5
    matrix[1, 1] = 2
    #expect(matrix[2, 0] == 5)
    #expect(matrix.diagonal == [0, 2, 0])
  }
}

struct CholeskyTests {
  /// A positive definite matrix whose features share directions.
  private func definite(_ size: Int) -> SymmetricMatrix {
    let x = Matrix.random(rows: size + size / 2 + 4, columns: size, key: "definite")
    var matrix = SymmetricMatrix(size: size)
    matrix.addGram(of: x)
    for index in 0..<size {
      matrix[index, index] += 0.1 * Double(size)
      if index > 0 { matrix[index, index - 1] += 0.05 * Double(size) }
    }
    return matrix
  }

  /// U·D·Uᵀ, element by element.
  private func worstDifference(_ factor: SymmetricMatrix.UpperFactor, _ matrix: SymmetricMatrix, shift: Double = 0) -> Double {
    let (size, upper) = (matrix.size, factor.unitUpper.elements)
    var worst = 0.0
    for row in 0..<size {
      for column in row..<size {
        var sum = 0.0
        for k in column..<size { sum += Double(upper[row * size + k]) * factor.pivots[k] * Double(upper[column * size + k]) }
        worst = max(worst, abs(sum - matrix[row, column] - (row == column ? shift : 0)))
      }
    }
    return worst
  }

  @Test(arguments: [1, 2, 5, 191, 192, 193, 400]) func factorsReproduceTheMatrixOnAnyNumberOfThreads(_ size: Int) throws {
    let matrix = definite(size)
    func factor(_ width: Int) -> SymmetricMatrix.UpperFactor? { Parallel.$width.withValue(width) { matrix.upperFactor(shift: 0.5) } }
    let factor1 = try #require(factor(1))
    let factor2 = try #require(factor(2))
    #expect(factor1.unitUpper == factor2.unitUpper)
    #expect(factor1.pivots == factor2.pivots)
    #expect(worstDifference(factor1, matrix, shift: 0.5) < 1e-6 * matrix.diagonal.max()!)
    for row in 0..<size {
      #expect(factor1.unitUpper[row, row] == 1)
      #expect((0..<row).allSatisfy { factor1.unitUpper[row, $0] == 0 })
    }
    #expect(factor1.pivots.allSatisfy { $0 > 0 })
  }

  @Test func aSmallFactorByHand() throws {
    // [[4, 2], [2, 2]] = U·D·Uᵀ with U₀₁ = 2/2, D = (4 − 2, 2).
    var matrix = SymmetricMatrix(size: 2)
    (matrix[0, 0], matrix[0, 1], matrix[1, 1]) = (4, 2, 2)
    let factor = try #require(matrix.upperFactor())
    #expect(factor.unitUpper.elements == [1, 1, 0, 1])
    #expect(zip(factor.pivots, [2.0, 2.0]).allSatisfy { abs($0 - $1) < 1e-12 })
  }

  @Test(arguments: [2, 193, 400]) func refusesWhatIsNotPositiveDefinite(_ size: Int) {
    for place in Set([0, size / 2, size - 1]) {
      var matrix = definite(size)
      matrix[place, place] = -1
      #expect(matrix.upperFactor() == nil, "negative at \(place)")
      #expect(matrix.upperFactor(shift: 1e5) != nil)
      matrix[place, place] = .nan
      #expect(matrix.upperFactor() == nil, "NaN at \(place)")
      matrix[place, place] = .infinity
      #expect(matrix.upperFactor() == nil, "infinity at \(place)")
    }
    #expect(SymmetricMatrix(size: size).upperFactor() == nil)
  }

  @Test func theEmptyMatrixHasTheEmptyFactor() throws {
    #expect(try #require(SymmetricMatrix(size: 0).upperFactor()).pivots.isEmpty)
  }
}
