internal import Foundation
package import Tensors

/// What a head does to logits.
public struct LogitDescription: Sendable, Equatable {
  public var scale: Float
  /// c of c · tanh(logit / c).
  public var cap: Float?

  public init(scale: Float = 1, cap: Float? = nil) {
    self.scale = scale
    self.cap = cap
  }
}

extension Block {
  /// What the linears of the head read: the hidden states, normalised.
  package func headInput(_ hidden: Matrix) -> Matrix {
    guard kind == .head, let (name, weight) = norms.first else { preconditionFailure("no head with a final norm") }
    return norm.apply(hidden, weight: weight, bias: normBiases[name])
  }

  /// Logits from the head's product, [tokens × vocabulary].
  package func finishLogits(_ product: Matrix) -> Matrix {
    guard logits.scale != 1 || logits.cap != nil else { return product }
    var result = product
    let count = result.rows * result.columns
    result.withUnsafeMutableElements { elements in
      for index in 0..<count { elements[index] *= logits.scale }
      if let cap = logits.cap { softCap(elements, count: count, cap: cap) }
    }
    return result
  }
}

/// x = cap · tanh(x / cap), in place (Gemma Team 2024, section 2).
func softCap(_ values: UnsafeMutablePointer<Float>, count: Int, cap: Float) {
  for index in 0..<count { values[index] = cap * tanh(values[index] / cap) }
}
