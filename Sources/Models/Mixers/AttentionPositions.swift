internal import Foundation

/// What queries are multiplied by where they stand, so that attention stays sharp over many keys: 1 + strength · ln(1 + ⌊(position + shift) /
/// stretch⌋), which is 1 over the first stretch (Llama 4, Ministral 3).
public struct QueryScale: Sendable, Equatable {
  public var strength: Float
  /// Positions over which the factor stays the same.
  public var stretch: Int
  public var shift: Int

  public init(strength: Float, stretch: Int, shift: Int = 0) {
    self.strength = strength
    self.stretch = stretch
    self.shift = shift
  }

  /// Whether such a factor exists at all positions.
  var isPossible: Bool { stretch > 0 && shift >= 0 && strength.isFinite }

  /// - Parameter position: of the query in its sequence, from 0 on.
  package func factor(at position: Int) -> Float { 1 + strength * log(Float(1 + (position + shift) / stretch)) }
}

/// Which keys before it a query of causal attention sees, itself included.
package struct AttentionReach: Sendable, Equatable {
  /// How many; `nil` for all.
  var window: Int?
  /// Positions of a chunk, outside which none are seen; `nil` where sequences are not cut.
  var chunk: Int?

  /// The first key that a query sees.
  package func first(of query: Int) -> Int {
    max(window.map { max(0, query - $0 + 1) } ?? 0, chunk.map { query / $0 * $0 } ?? 0)
  }
}

extension AttentionDescription {
  package var reach: AttentionReach { AttentionReach(window: window, chunk: chunk) }

  /// What the scores of heads fall by for each position of distance (Press et al. 2022, "ALiBi"): for n heads the powers of 2^(−8 / n), where n is
  /// a power of two; otherwise those of the next smaller one, and then every other one of the next larger.
  static func slopes(heads: Int) -> [Float] {
    var whole = 1
    while 2 * whole <= heads { whole *= 2 }
    let regular = (1...whole).map { Float(exp2(-8 * Double($0) / Double(whole))) }
    let between = (0..<heads - whole).map { Float(exp2(-8 * Double(2 * $0 + 1) / Double(2 * whole))) }
    return regular + between
  }
}
