internal import Foundation
internal import Models
internal import Tensors

/// What decides which channels and heads stay.
public enum WidthImportance: String, Sendable, Codable, CaseIterable {
  /// How large they are: E|x| of channels, the root mean square of heads (Minitron, Muralidharan et al. 2024, section 2.2). Deviation: means
  /// over all tokens alike, not norms over sequences.
  case activations
  /// Var(x) · ‖w‖² with w the weights that read them (FLAP, An et al. 2024, equation 5). Deviation: the variance is the variance; the reference
  /// code updates its running mean before using the old one.
  case fluctuation
  /// ‖w‖ · √E[x²] (Wanda, Sun et al. 2023, of whole channels).
  case wanda
  /// The norm of all their weights.
  case magnitude
  case random
  /// The loss that remains when least squares on the others has made up for them, eliminated greedily (optimal brain surgeon for channels).
  case reconstruction
}

/// A score for every unit of columns of a layer: the lowest go.
struct UnitScores {
  /// [outputs × inputs] of the layer that reads the units.
  let reader: Matrix
  let units: [[Int]]
  /// Σ w² over the weights that make each unit, for `magnitude`.
  let makers: [Double]

  /// Σ over outputs of w² for every input.
  private var columnSquares: [Double] {
    var squares = [Double](repeating: 0, count: reader.columns)
    for row in 0..<reader.rows {
      for column in squares.indices { squares[column] += Double(reader[row, column]) * Double(reader[row, column]) }
    }
    return squares
  }

  /// - Parameter moments: `nil` for the criteria that need no data.
  func values(_ importance: WidthImportance, _ moments: ChannelMoments?, random: inout some RandomNumberGenerator) -> [Double] {
    func sums(_ values: [Double]) -> [Double] { units.map { $0.reduce(0) { $0 + values[$1] } } }
    switch importance {
    case .random: return units.map { _ in Double.random(in: 0..<1, using: &random) }
    case .magnitude: return zip(sums(columnSquares), makers).map { $0 + $1 }
    case .activations:
      guard let moments else { return [] }
      return units.map { unit in
        unit.count == 1
          ? moments.meanMagnitudes[unit[0]] : unit.reduce(0) { $0 + moments.meanSquares[$1] }.squareRoot()
      }
    case .fluctuation: return moments.map { sums(zip($0.variances, columnSquares).map { $0 * $1 }) } ?? []
    case .wanda: return moments.map { sums(zip($0.meanSquares, columnSquares).map { ($0 * $1).squareRoot() }) } ?? []
    case .reconstruction: return []
    }
  }
}

extension WidthImportance {
  var needsData: Bool { self != .magnitude && self != .random }
}

extension Matrix {
  /// Σ w² of every row.
  var rowSquares: [Double] {
    (0..<rows).map { row in
      elements[row * columns..<(row + 1) * columns].reduce(0) { $0 + Double($1) * Double($1) }
    }
  }
}
