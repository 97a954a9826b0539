import CompressKit
import TestSupport
import Testing

@Suite struct StatisticTests {
  private let first = Matrix.random(rows: 37, columns: 24, key: "first")
  private let second = Matrix.random(rows: 5, columns: 24, key: "second", scale: 3)

  /// Σ xᵀx, term by term in double precision.
  private func gram(_ rows: Matrix...) -> [[Double]] {
    var sum = Array(repeating: Array(repeating: 0.0, count: rows[0].columns), count: rows[0].columns)
    for matrix in rows {
      for row in 0..<matrix.rows {
        for i in sum.indices { for j in sum.indices { sum[i][j] += Double(matrix[row, i]) * Double(matrix[row, j]) } }
      }
    }
    return sum
  }

  private func expect(_ hessian: Hessian, near expected: [[Double]], _ location: SourceLocation = #_sourceLocation) {
    let scale = expected.indices.map { expected[$0][$0] }.max()!
    for i in expected.indices {
      for j in expected.indices {
        #expect(abs(hessian.matrix[i, j] - expected[i][j]) <= 1e-5 * scale, "element \(i), \(j)", sourceLocation: location)
      }
    }
  }

  @Test func theHessianIsTheSumOfOuterProducts() {
    var hessian = Hessian(features: 24)
    hessian.update(first)
    expect(hessian, near: gram(first))
    #expect(hessian.tokens == 37 && hessian.skippedTokens == 0)
  }

  @Test func mergingIsConcatenating() {
    var (one, other, whole, updated) = (Hessian(features: 24), Hessian(features: 24), Hessian(features: 24), Hessian(features: 24))
    one.update(first)
    other.update(second)
    updated.update(first)
    updated.update(second)
    whole.update(Matrix(stacking: [first, second]))
    var (forward, backward) = (one, other)
    forward.merge(other)
    backward.merge(one)
    for hessian in [whole, updated, forward, backward] {
      expect(hessian, near: gram(first, second))
      #expect(hessian.tokens == 42)
    }
    #expect(forward == updated && forward == backward)
  }

  @Test func anEmptyStatisticChangesNothing() {
    var hessian = Hessian(features: 24)
    hessian.update(first)
    var merged = hessian
    merged.merge(Hessian(features: 24))
    merged.update(Matrix(rows: 0, columns: 24))
    #expect(merged == hessian)
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func theHessianLeavesOutTokensThatAreNotFinite(value: Float) {
    var spoilt = first
    spoilt[0, 0] = value
    spoilt[17, 23] = value
    spoilt[36, 5] = value
    spoilt[36, 6] = .nan
    var hessian = Hessian(features: 24)
    hessian.update(spoilt)
    expect(hessian, near: gram(first.rows(1..<17), first.rows(18..<36)))
    #expect(hessian.tokens == 34)
    #expect(hessian.skippedTokens == 3)
    var other = Hessian(features: 24)
    other.update(spoilt)
    other.merge(hessian)
    #expect(other.tokens == 68 && other.skippedTokens == 6)
  }

  @Test func theInputNormIsTheRootOfTheSumOfSquares() {
    var (norm, other) = (InputNorm(features: 24), InputNorm(features: 24))
    norm.update(first)
    other.update(second)
    norm.merge(other)
    let expected = gram(first, second)
    for i in 0..<24 {
      #expect(abs(norm.squaredValues[i] - expected[i][i]) <= 1e-9 * expected[i][i])
      #expect(norm.values[i] == Float(norm.squaredValues[i].squareRoot()))
    }
    var whole = InputNorm(features: 24)
    whole.update(Matrix(stacking: [first, second]))
    #expect(zip(whole.values, norm.values).allSatisfy { abs($0 - $1) <= 1e-6 * $1 })
  }

  @Test(arguments: [1, 2, 5])
  func theHessianDoesNotDependOnTheNumberOfThreads(width: Int) {
    let input = Matrix.random(rows: 64, columns: 300, key: "threads")
    var (one, many) = (Hessian(features: 300), Hessian(features: 300))
    Parallel.$width.withValue(1) { one.update(input) }
    Parallel.$width.withValue(width) { many.update(input) }
    #expect(one == many)
  }
}
