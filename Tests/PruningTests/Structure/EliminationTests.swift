import CompressKit
import TestSupport
import Testing

@testable import Pruning

@Suite struct EliminationTests {
  static let size = 10
  static let weight = Matrix.random(rows: 6, columns: size, key: "elimination weight")

  /// Inputs that depend on each other.
  static let moment: SymmetricMatrix = {
    var moment = SymmetricMatrix(size: size)
    let mixing = Matrix.random(rows: size, columns: size, key: "mixing", scale: 0.5)
    moment.addGram(of: Matrix.random(rows: 64, columns: size, key: "inputs").times(transposed: mixing))
    return moment
  }()

  static func rows(_ kept: [Int], _ shift: Double) -> [[Double]] {
    kept.map { i in kept.map { moment[i, $0] + (i == $0 ? shift : 0) } }
  }

  /// The normal equations: W' · (G_KK + λI) = W · (G + λI)_:K.
  static func leastSquares(_ kept: [Int], _ shift: Double) -> [[Double]] {
    let right = (0..<weight.rows).map { row in
      kept.map { column in
        (0..<size).reduce(0.0) { $0 + Double(weight[row, $1]) * (moment[$1, column] + ($1 == column ? shift : 0)) }
      }
    }
    return solved(rows(kept, shift), right)
  }

  /// tr(E · (G + λI) · Eᵀ) of leaving out all but `kept` and solving for these.
  static func loss(_ kept: [Int], _ shift: Double) -> Double {
    let solution = leastSquares(kept, shift)
    return (0..<weight.rows).reduce(0.0) { sum, row in
      var error = (0..<size).map { Double(weight[row, $0]) }
      for (place, column) in kept.enumerated() { error[column] -= solution[row][place] }
      return (0..<size).reduce(sum) { sum, i in
        (0..<size).reduce(sum) { $0 + error[i] * error[$1] * (moment[i, $1] + (i == $1 ? shift : 0)) }
      }
    }
  }

  @Test(arguments: [[0, 1, 2, 5, 9], [3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
  func leastSquaresSolvesTheNormalEquations(kept: [Int]) throws {
    let damping = 1e-3
    let oracle = Self.leastSquares(kept, Self.moment.shift(damping))
    let solution = try #require(Self.weight.leastSquares(keeping: kept, moment: Self.moment, damping: damping))
    for row in 0..<solution.rows {
      for column in kept.indices { #expect(abs(Double(solution[row, column]) - oracle[row][column]) < 1e-6) }
    }
  }

  @Test func oneByOneIsTheGreedyChoice() throws {
    let damping = 1e-2
    let shift = Self.moment.shift(damping)
    var kept = Array(0..<Self.size)
    for count in 1...6 {
      let next = kept.min { a, b in Self.loss(kept.filter { $0 != a }, shift) < Self.loss(kept.filter { $0 != b }, shift) }!
      kept.removeAll { $0 == next }
      let elimination = Elimination(
        units: (0..<Self.size).map { [$0] }, classes: Array(repeating: 0, count: Self.size), quota: count, rounds: count)
      let (removed, loss) = try #require(elimination.run(Self.weight, moment: Self.moment, damping: damping))
      #expect(removed == Set(0..<Self.size).subtracting(kept))
      #expect(abs(loss / Self.loss(kept, shift) - 1) < 1e-8)
    }
  }

  @Test func blocksOfColumnsHaveTheirJointLoss() throws {
    let units = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    let elimination = Elimination(units: units, classes: [0, 0, 0, 1, 1], quota: 1, rounds: 1)
    let (removed, _) = try #require(elimination.run(Self.weight, moment: Self.moment, damping: 1e-2))
    let shift = Self.moment.shift(1e-2)
    func loss(_ unit: Int) -> Double { Self.loss((0..<Self.size).filter { !units[unit].contains($0) }, shift) }
    #expect(removed == [(0..<3).min { loss($0) < loss($1) }!, (3..<5).min { loss($0) < loss($1) }!])
  }

  @Test func whatCannotBeInvertedIsSaid() {
    let elimination = Elimination(units: [[0], [1]], classes: [0, 0], quota: 1)
    #expect(elimination.run(Matrix(rows: 2, columns: 2, repeating: 1), moment: SymmetricMatrix(size: 2), damping: 0.1) == nil)
    #expect(Matrix(rows: 2, columns: 2, repeating: 1).leastSquares(keeping: [0], moment: SymmetricMatrix(size: 2), damping: 0) == nil)
  }

  @Test func theErrorOfEveryCompensationIsItsOwn() throws {
    // Against the outputs themselves, token by token.
    let input = Matrix.random(rows: 200, columns: Self.size, key: "tokens")
    var moments = ChannelMoments(features: Self.size)
    moments.update(input)
    let kept = [0, 2, 3, 5, 7, 8]
    let outputs = input.times(transposed: Self.weight)
    let whole = outputs.elements.reduce(0) { $0 + Double($1) * Double($1) }
    var losses: [Double] = []
    for compensation in Compensation.allCases {
      let result = try #require(compensation.apply(to: Self.weight, keeping: kept, moments, damping: 0))
      var pruned = input.selecting(columns: kept).times(transposed: result.weight)
      for row in 0..<pruned.rows { for column in 0..<pruned.columns { pruned[row, column] += result.bias?[column] ?? 0 } }
      let loss = zip(outputs.elements, pruned.elements).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) } / whole
      #expect(abs(result.relativeLoss - loss) < 1e-5, "\(compensation)")
      losses.append(result.relativeLoss)
    }
    #expect(losses[1] < losses[0] && losses[2] < losses[0])
  }
}
