import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Models

struct SparseMixerTests {
  private func mixture(_ experts: Int) -> MixtureDescription {
    var mixture = MixtureDescription(experts: experts, expertsPerToken: 2, normalizesWeights: false, router: "gate", prefix: "experts.")
    mixture.scoring = .sparseMixer(tolerance: 0.01)
    return mixture
  }

  @Test(
    arguments: [
      // Of the first two, one is within two hundredths of the other; then it is alone.
      ([1, 0.99, 0.2, 0.96], [0, 1], [exp(0.01) / (1 + exp(0.01)), 1]),
      // Shares of the larger number, whatever its sign.
      ([-100, -101, -104, -110], [0, 1], [exp(1) / (1 + exp(1)), 1]),
      // Nothing sets these apart: the lower index first.
      ([0, 0, 0], [0, 1], [1.0 / 3, 0.5]),
    ] as [([Float], [Int], [Double])])
  func expertsAreWeighedAgainstThoseThatCameNear(_ row: [Float], _ chosen: [Int], _ weights: [Double]) {
    let routes = mixture(row.count).routes(scores: Matrix(rows: 1, columns: row.count, elements: row))
    #expect(routes.indices.filter { !routes[$0].tokens.isEmpty } == chosen.sorted())
    for (expert, weight) in zip(chosen, weights) { #expect(abs(Double(routes[expert].weights[0]) - weight) < 1e-5) }
  }

  /// Central differences, where no step changes who is chosen.
  @Test func theWayBackIsTheSlope() {
    let row: [Float] = [1, 0.99, 0.985, 0.2]
    let mixture = mixture(4)
    func weights(_ row: [Float]) -> [Float] {
      mixture.routes(scores: Matrix(rows: 1, columns: 4, elements: row)).map { $0.weights.first ?? 0 }
    }
    let gradients: [Float] = [0.7, -1.3, 0, 0]
    let routes = mixture.routes(scores: Matrix(rows: 1, columns: 4, elements: row))
    let found = mixture.pullback(
      scores: Matrix(rows: 1, columns: 4, elements: row), routes: routes, gradients: gradients.map { [$0] })
    #expect(routes[0].weights.count == 1 && routes[1].weights.count == 1)
    for place in 0..<4 {
      var (up, down) = (row, row)
      up[place] += 1e-3
      down[place] -= 1e-3
      let slope = zip(zip(weights(up), weights(down)), gradients).reduce(Float(0)) { $0 + ($1.0.0 - $1.0.1) / 2e-3 * $1.1 }
      #expect(abs(found[0, place] - slope) < 1e-3)
    }
  }
}
