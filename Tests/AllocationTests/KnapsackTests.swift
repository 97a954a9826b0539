import CompressKit
import Testing

struct KnapsackTests {
  /// Every combination, tried.
  private func bruteForce(_ units: [[Knapsack.Option]], budget: Int) -> Double? {
    var sums: [(cost: Int, loss: Double)] = [(0, 0)]
    for unit in units { sums = sums.flatMap { sum in unit.map { (sum.cost + $0.cost, sum.loss + $0.loss) } } }
    return sums.filter { $0.cost <= budget }.map(\.loss).min()
  }

  @Test(arguments: 0..<60) func isOptimal(_ seed: Int) throws {
    var random = KeyedRandomness(seed: UInt64(seed), key: "knapsack")
    let units = (0..<Int.random(in: 1...8, using: &random)).map { _ in
      (0..<Int.random(in: 1...5, using: &random)).map { _ in
        Knapsack.Option(cost: Int.random(in: 1...50, using: &random), loss: Double.random(in: 0...1, using: &random))
      }
    }
    let smallest = units.reduce(0) { $0 + $1.map(\.cost).min()! }
    let largest = units.reduce(0) { $0 + $1.map(\.cost).max()! }
    for budget in [smallest - 1, smallest, (smallest + largest) / 2, smallest + (largest - smallest) / 4, largest] {
      let solution = Knapsack(units).solve(budget: budget)
      guard let expected = bruteForce(units, budget: budget) else {
        #expect(solution == nil)
        continue
      }
      let found = try #require(solution)
      #expect(abs(found.loss - expected) < 1e-9, "budget \(budget)")
      #expect(found.cost <= budget)
      let chosen = zip(units, found.choices).map { $0[$1] }
      #expect(found.cost == chosen.reduce(0) { $0 + $1.cost } && found.loss == chosen.reduce(0) { $0 + $1.loss })
    }
  }

  @Test func manyUnitsOfFewSizesAreSolved() throws {
    var random = KeyedRandomness(seed: 1, key: "large")
    let units = (0..<256).map { index in
      let sensitivity = Double.random(in: 0.1...10, using: &random)
      return [3, 4, 5, 6, 8].map { Knapsack.Option(cost: $0 * (index % 4 + 1) << 20, loss: sensitivity * Double(1 << (2 * (8 - $0)))) }
    }
    let budget = units.reduce(0) { $0 + $1[1].cost } + units.count / 4 << 20
    let solution = try #require(Knapsack(units).solve(budget: budget))
    #expect(solution.cost <= budget)
    // Doing better than any one format for all is the least that mixing must achieve.
    #expect(solution.loss < units.reduce(0) { $0 + $1[1].loss })
  }
}
