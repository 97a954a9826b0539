internal import Foundation
internal import Tensors

/// Experts chosen one after the other, each weighed against those that came near it (Liu et al. 2024, "GRIN", section 3).
struct SparseChoice {
  let expert: Int
  /// The experts that the weight is a softmax over, the chosen one among them, and what each gets.
  let shares: [(expert: Int, share: Float)]

  /// What the chosen expert counts.
  var weight: Float { shares.first { $0.expert == expert }?.share ?? 0 }
}

extension MixtureDescription {
  /// - Parameters:
  ///   - row: the router's outputs for one token.
  ///   - tolerance: of `Scoring.sparseMixer`.
  /// - Returns: as many as see the token; of equal scores the lower index is chosen first.
  func sparseChoices(of row: [Float], tolerance: Float) -> [SparseChoice] {
    var left = Array(row.indices)
    return (0..<expertsPerToken).map { _ in
      let best = left.max { (row[$0], $1) < (row[$1], $0) } ?? 0
      // As a comparison that fails for 0 / 0, so that experts which all score nothing are near each other.
      let near = left.filter { !((row[best] - row[$0]) / max(abs(row[$0]), row[best]) > 2 * tolerance) }
      let powers = near.map { exp(row[$0] - row[best]) }
      let total = powers.reduce(0, +)
      left.removeAll { $0 == best }
      return SparseChoice(expert: best, shares: zip(near, powers).map { ($0, $1 / total) })
    }
  }

  /// The way back through `sparseChoices` of one token: a softmax over those that came near; who did has no gradient.
  ///
  /// - Parameter gradients: of what the chosen experts count, by expert.
  func sparsePullback(of row: [Float], tolerance: Float, gradients: [Int: Float]) -> [Float] {
    var below = [Float](repeating: 0, count: experts)
    for choice in sparseChoices(of: row, tolerance: tolerance) {
      guard let gradient = gradients[choice.expert] else { continue }
      for (expert, share) in choice.shares {
        below[expert] += gradient * choice.weight * ((expert == choice.expert ? 1 : 0) - share)
      }
    }
    return below
  }
}
