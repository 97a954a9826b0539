/// The multiple-choice knapsack: one option for each of several units, so that the costs stay within a budget and the losses add up to as
/// little as possible.
///
/// Solved to optimality: dynamic programming over partial choices, of which those are dropped that another one dominates, that cannot end
/// within the budget, or whose Lagrangian bound (Everett 1963) is no better than a choice already known.
public struct Knapsack: Sendable {
  public struct Option: Sendable, Equatable {
    /// In any unit, the budget's.
    public var cost: Int
    public var loss: Double

    public init(cost: Int, loss: Double) {
      self.cost = cost
      self.loss = loss
    }
  }

  public struct Solution: Sendable, Equatable {
    /// Index of the option chosen for each unit.
    public var choices: [Int]
    public var cost: Int
    public var loss: Double
  }

  public var units: [[Option]]

  /// - Precondition: every unit has an option.
  public init(_ units: [[Option]]) {
    precondition(units.allSatisfy { !$0.isEmpty }, "a unit without options")
    self.units = units
  }

  /// - Returns: `nil` where even the cheapest options exceed the budget.
  public func solve(budget: Int) -> Solution? {
    guard units.reduce(0, { $0 + $1.map(\.cost).min()! }) <= budget else { return nil }
    let (incumbent, multiplier) = lagrangian(budget: budget)
    // What is still to come: at least this cost, and at least this loss at the multiplier's price of cost.
    var cheapest = [0]
    var priced = [0.0]
    for unit in units.reversed() {
      cheapest.append(cheapest.last! + unit.map(\.cost).min()!)
      priced.append(priced.last! + unit.map { $0.loss + multiplier * Double($0.cost) }.min()!)
    }
    cheapest.reverse()
    priced.reverse()
    let slack = 1e-12 * max(abs(incumbent.loss), 1)

    struct Partial {
      var cost: Int
      var loss: Double
      var parent: Int
      var choice: Int
    }
    var layers: [[Partial]] = [[Partial(cost: 0, loss: 0, parent: 0, choice: 0)]]
    for (index, unit) in units.enumerated() {
      var next: [Partial] = []
      for (parent, partial) in layers[index].enumerated() {
        for (choice, option) in unit.enumerated() {
          let (cost, loss) = (partial.cost + option.cost, partial.loss + option.loss)
          guard cost + cheapest[index + 1] <= budget,
            loss + multiplier * Double(cost - budget) + priced[index + 1] <= incumbent.loss + slack
          else { continue }
          next.append(Partial(cost: cost, loss: loss, parent: parent, choice: choice))
        }
      }
      next.sort { ($0.cost, $0.loss) < ($1.cost, $1.loss) }
      var kept: [Partial] = []
      for partial in next where kept.last.map({ partial.loss < $0.loss }) ?? true { kept.append(partial) }
      layers.append(kept)
    }
    guard let best = layers[units.count].indices.min(by: { layers[units.count][$0].loss < layers[units.count][$1].loss }),
      layers[units.count][best].loss < incumbent.loss
    else { return incumbent }
    var choices = [Int](repeating: 0, count: units.count)
    var at = best
    for index in units.indices.reversed() {
      let partial = layers[index + 1][at]
      choices[index] = partial.choice
      at = partial.parent
    }
    return solution(choices)
  }

  private func solution(_ choices: [Int]) -> Solution {
    let chosen = zip(units, choices).map { $0[$1] }
    return Solution(choices: choices, cost: chosen.reduce(0) { $0 + $1.cost }, loss: chosen.reduce(0) { $0 + $1.loss })
  }

  /// The best choice at a price of cost, with the price as low as the budget allows, improved by what still fits.
  private func lagrangian(budget: Int) -> (solution: Solution, multiplier: Double) {
    func choose(_ multiplier: Double) -> Solution {
      solution(
        units.map { unit in
          unit.indices.min {
            let (a, b) = (unit[$0], unit[$1])
            let (first, second) = (a.loss + multiplier * Double(a.cost), b.loss + multiplier * Double(b.cost))
            return (first, a.cost) < (second, b.cost)
          }!
        })
    }
    var (low, high) = (0.0, 1.0)
    var best = choose(0)
    guard best.cost > budget else { return (best, 0) }
    // The cheapest options win at some price.
    let cheapest = solution(units.map { unit in unit.indices.min { (unit[$0].cost, unit[$0].loss) < (unit[$1].cost, unit[$1].loss) }! })
    best = cheapest
    for _ in 0..<200 where choose(high).cost > budget { high *= 4 }
    for _ in 0..<200 {
      let middle = (low + high) / 2
      let found = choose(middle)
      if found.cost <= budget {
        high = middle
        if found.loss < best.loss { best = found }
      } else {
        low = middle
      }
    }
    var improved = true
    while improved {
      improved = false
      for (index, unit) in units.enumerated() {
        for (choice, option) in unit.enumerated() {
          let current = unit[best.choices[index]]
          guard option.loss < current.loss, best.cost - current.cost + option.cost <= budget else { continue }
          var choices = best.choices
          choices[index] = choice
          best = solution(choices)
          improved = true
        }
      }
    }
    return (best, high)
  }
}
