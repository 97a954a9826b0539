import Models
import Tensors

/// Linears of one input group that are factored together: one alone, or several over a common input factor.
struct FactorUnit: Sendable, Codable, Hashable {
  var linears: [LinearName]
  /// `nil` to leave them dense.
  var rank: Int?
}

/// The spectra of the linears of a unit, from which the factors of any rank follow.
struct UnitComponents: Sendable {
  private let weights: [DoubleMatrix]
  /// What each linear's outputs count for in the whole; 1 for a linear alone.
  private let emphasis: [Double]
  private let stacked: DoubleMatrix
  private let components: OutputComponents

  /// Every linear's loss counts in relation to its own outputs, so that one with large outputs does not take the whole rank.
  ///
  /// - Returns: `nil` where LAPACK's iteration did not converge.
  init?(_ weights: [DoubleMatrix], moment: DoubleMatrix) {
    self.weights = weights
    if weights.count == 1 {
      emphasis = [1]
    } else {
      let energies = weights.map { $0.energy(under: moment) }
      let mean = energies.reduce(0, +) / Double(energies.count)
      emphasis = energies.map { $0 > 0 ? (mean / $0).squareRoot() : 1 }
    }
    stacked = DoubleMatrix(stacking: zip(weights, emphasis).map { $0.scaled(by: $1) })
    guard let components = OutputComponents(of: stacked, moment: moment) else { return nil }
    self.components = components
  }

  var shape: FactorShape { FactorShape(rows: stacked.rows, columns: stacked.columns) }

  /// Mean over the linears of their losses as shares of their outputs.
  func relativeTail(beyond rank: Int) -> Double {
    let total = components.total
    return total > 0 ? components.tail(beyond: rank) / total : 0
  }

  /// B of every linear, [outputs × rank], and the A they share.
  func factors(rank: Int) -> (outputs: [DoubleMatrix], input: DoubleMatrix) {
    let (output, input) = components.factors(of: stacked, rank: rank)
    var outputs: [DoubleMatrix] = []
    var first = 0
    for (weight, emphasis) in zip(weights, emphasis) {
      outputs.append(output.rows(first..<first + weight.rows).scaled(by: 1 / emphasis))
      first += weight.rows
    }
    return (outputs, input)
  }
}

/// How the linears of a group are factored, with the spectra that needs.
struct FactorChoice {
  let units: [FactorUnit]
  /// By the linears of a unit; absent where LAPACK's iteration did not converge.
  let components: [[LinearName]: UnitComponents]

  private init(_ units: [FactorUnit], _ components: [[LinearName]: UnitComponents]) {
    self.units = units
    self.components = components
  }

  init(_ units: [FactorUnit], of weights: [LinearName: DoubleMatrix], metric: DoubleMatrix) {
    self.init(units, Self.components(of: units, weights, metric))
  }

  /// Every group keeps its share of bytes; with or without a common input factor, as the options say or as loses less.
  init(uniform options: LowRank, group: InputGroup, of weights: [LinearName: DoubleMatrix], metric: DoubleMatrix, surplus: Int = 0) {
    let shapes = weights.mapValues { FactorShape(rows: $0.rows, columns: $0.columns) }
    let apart = options.units(of: group.linears, shapes: shapes, sharing: false, surplus: surplus)
    let together = options.units(of: group.linears, shapes: shapes, sharing: true, surplus: surplus)
    let mayShare = options.share != .never && group.linears.count > 1
    guard mayShare, options.share == .auto else {
      self.init(mayShare ? together : apart, of: weights, metric: metric)
      return
    }
    let found = Self.components(of: apart + together, weights, metric)
    func loss(_ units: [FactorUnit]) -> Double {
      units.reduce(0) { sum, unit in
        guard let rank = unit.rank else { return sum }
        return sum + Double(unit.linears.count) * (found[unit.linears]?.relativeTail(beyond: rank) ?? .infinity)
      }
    }
    self.init(loss(together) < loss(apart) ? together : apart, found)
  }

  private static func components(
    of units: [FactorUnit], _ weights: [LinearName: DoubleMatrix], _ metric: DoubleMatrix
  ) -> [[LinearName]: UnitComponents] {
    let found = Parallel.map(units.count) { index in UnitComponents(units[index].linears.map { weights[$0]! }, moment: metric) }
    return Dictionary(zip(units.map(\.linears), found).compactMap { unit, found in found.map { (unit, $0) } }) { first, _ in first }
  }
}
