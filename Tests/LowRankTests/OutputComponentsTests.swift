import CompressKit
import Foundation
@testable import LowRank
import TestSupport
import Testing

struct OutputComponentsTests {
  private func components(_ weight: Matrix, _ moment: Oracle.Rows) throws -> OutputComponents {
    try #require(
      OutputComponents(
        of: DoubleMatrix(weight), moment: DoubleMatrix(rows: moment.count, columns: moment.count, elements: moment.flatMap { $0 })))
  }

  private func approximation(_ components: OutputComponents, _ weight: Matrix, rank: Int) -> Oracle.Rows {
    let (output, input) = components.factors(of: DoubleMatrix(weight), rank: rank)
    let product = output.times(input)
    return (0..<product.rows).map { row in (0..<product.columns).map { product[row, $0] } }
  }

  @Test(arguments: [(24, 40), (40, 24), (24, 24)])
  func theErrorIsTheTailOfTheWhitenedSpectrum(_ outputs: Int, _ inputs: Int) throws {
    let weight = Matrix.random(rows: outputs, columns: inputs, key: "whitened")
    let x = Oracle.rows(correlated(tokens: 96, features: inputs, key: "whitened"))
    let components = try components(weight, Oracle.gram(x))
    // SVD-LLM as published: the singular values of W·L, with L the Cholesky factor of the second moment.
    let published = Oracle.singularValues(Oracle.product(Oracle.rows(weight), Oracle.cholesky(Oracle.gram(x))))
    for (energy, value) in zip(components.energies, published) { #expect(abs(energy - value * value) < 1e-9 * components.total) }
    for rank in [1, 5, 12, 20] {
      let tail = published.dropFirst(rank).reduce(0) { $0 + $1 * $1 }
      #expect(abs(components.tail(beyond: rank) / tail - 1) < 1e-6)
      let loss = Oracle.loss(Oracle.difference(Oracle.rows(weight), approximation(components, weight, rank: rank)), x)
      #expect(abs(loss / tail - 1) < 1e-6, "rank \(rank): \(loss) \(tail)")
    }
  }

  @Test func aSecondMomentWithoutFullRankIsNoObstacle() throws {
    for (outputs, inputs) in [(16, 30), (30, 16)] {
      let weight = Matrix.random(rows: outputs, columns: inputs, key: "singular")
      let x = Oracle.rows(correlated(tokens: 9, features: inputs, key: "singular"))
      let components = try components(weight, Oracle.gram(x))
      let loss = Oracle.loss(Oracle.difference(Oracle.rows(weight), approximation(components, weight, rank: 9)), x)
      #expect(loss < 1e-9 * components.total)
      #expect(abs(components.total / Oracle.loss(Oracle.rows(weight), x) - 1) < 1e-6)
    }
  }

  @Test func withoutDataItIsTheSingularValueDecomposition() throws {
    let weight = Matrix.random(rows: 18, columns: 26, key: "plain")
    let identity = (0..<26).map { row in (0..<26).map { $0 == row ? 1.0 : 0.0 } }
    let components = try components(weight, identity)
    let values = Oracle.singularValues(Oracle.rows(weight))
    for (energy, value) in zip(components.energies, values) { #expect(abs(energy / (value * value) - 1) < 1e-9) }
  }

  @Test func noOtherMetricDoesBetterOnItsData() throws {
    let weight = Matrix.random(rows: 20, columns: 28, key: "metrics")
    let x = Oracle.rows(correlated(tokens: 200, features: 28, key: "metrics"))
    let means = (0..<28).map { column in x.reduce(0.0) { $0 + abs($1[column]) } / Double(x.count) }
    func diagonal(_ values: [Double]) -> Oracle.Rows { values.indices.map { row in values.indices.map { $0 == row ? values[row] : 0 } } }
    func loss(_ moment: Oracle.Rows) throws -> Double {
      Oracle.loss(Oracle.difference(Oracle.rows(weight), approximation(try components(weight, moment), weight, rank: 8)), x)
    }
    let (plain, scaled, whitened) = (
      try loss(diagonal(means.map { _ in 1 })), try loss(diagonal(means)), try loss(Oracle.gram(x))
    )
    #expect(whitened < scaled && scaled < plain, "\(whitened) \(scaled) \(plain)")
  }

  @Test func aSharedFactorWeighsEveryLinearByItsOutputs() throws {
    let x = Oracle.rows(correlated(tokens: 120, features: 24, key: "shared"))
    let weights = [Matrix.random(rows: 24, columns: 24, key: "large", scale: 30), Matrix.random(rows: 12, columns: 24, key: "small")]
    let moment = DoubleMatrix(rows: 24, columns: 24, elements: Oracle.gram(x).flatMap { $0 })
    let components = try #require(UnitComponents(weights.map { DoubleMatrix($0) }, moment: moment))
    let (outputs, input) = components.factors(rank: 10)
    let losses = zip(weights, outputs).map { weight, output in
      let product = output.times(input)
      let rows = (0..<product.rows).map { row in (0..<product.columns).map { product[row, $0] } }
      return Oracle.loss(Oracle.difference(Oracle.rows(weight), rows), x) / Oracle.loss(Oracle.rows(weight), x)
    }
    #expect(abs((losses[0] + losses[1]) / 2 / components.relativeTail(beyond: 10) - 1) < 1e-6)
    #expect(losses[1] < 3 * losses[0] && losses[0] < 3 * losses[1], "\(losses)")
  }
}

struct RankBudgetTests {
  @Test(arguments: [0.3, 0.6, 0.8, 0.95, 0.99]) func ranksFillTheBudget(_ share: Double) {
    let shapes = [(256, 256), (64, 256), (64, 256), (768, 256), (256, 768)].map { FactorShape(rows: $0, columns: $1) }
    let all = shapes.reduce(0) { $0 + $1.elements }
    let budget = Int(share * Double(all))
    let ranks = RankBudget(step: 8).ranks(for: shapes, elements: budget)
    var spent = 0
    for (shape, rank) in zip(shapes, ranks) {
      let rank = rank ?? 0
      #expect(rank > 0 && rank % 8 == 0 && rank * shape.cost < shape.elements)
      spent += rank * shape.cost
    }
    #expect(spent <= budget)
    // Nothing is left over that one more step would have fitted, unless every rank is where it saves no more.
    #expect(budget - spent < 8 * 1024 || zip(shapes, ranks).allSatisfy { $1 == $0.largestRank(step: 8) })
  }

  @Test func whatNoRankMakesSmallerStaysDense() {
    let shapes = [FactorShape(rows: 16, columns: 16), FactorShape(rows: 256, columns: 256)]
    let ranks = RankBudget(step: 8).ranks(for: shapes, elements: 40_000)
    #expect(ranks[0] == nil && ranks[1] == 72)
  }
}
