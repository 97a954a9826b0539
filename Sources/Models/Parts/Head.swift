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

/// What turns hidden states into logits: the final norm, and the matrix behind it.
public struct Head: ModelPart {
  public let prefix: String
  /// The matrix; none where the embedding's table serves as one.
  public var linears: [LinearName: Linear]
  /// The final norm, by its name in the whole model.
  public var norms: PartNorms
  /// How it computes.
  public var norm: NormDescription
  public var logits: LogitDescription

  public init(
    prefix: String = "", linears: [LinearName: Linear] = [:], norms: PartNorms = PartNorms(),
    norm: NormDescription = NormDescription(epsilon: 1e-6), logits: LogitDescription = LogitDescription()
  ) {
    self.prefix = prefix
    self.linears = linears
    self.norms = norms
    self.norm = norm
    self.logits = logits
  }

  public var place: PartPlace { .head }
  public var name: String { "head" }

  /// What the matrix reads: the hidden states, normalised.
  package func input(_ hidden: Matrix) -> Matrix {
    guard let (name, weight) = norms.weights.first else { preconditionFailure("a head has a final norm") }
    return norm.apply(hidden, weight: weight, bias: norms.biases[name])
  }

  /// Logits from the matrix's product, [tokens × vocabulary].
  package func finishLogits(_ product: Matrix) -> Matrix {
    var result = product
    if let bias = linears.values.first?.bias { result.add(row: bias) }
    guard logits.scale != 1 || logits.cap != nil else { return result }
    let count = result.rows * result.columns
    result.withUnsafeMutableElements { elements in
      for index in 0..<count { elements[index] *= logits.scale }
      if let cap = logits.cap { softCap(elements, count: count, cap: cap) }
    }
    return result
  }
}

extension Head {
  /// The way back through `finishLogits`: gradients of logits become those of the matrix's product.
  ///
  /// - Parameter finished: the logits as they came out.
  package func pullLogits(_ gradient: inout Matrix, _ finished: Matrix) {
    guard logits.scale != 1 || logits.cap != nil else { return }
    let (count, scale, cap) = (gradient.rows * gradient.columns, logits.scale, logits.cap)
    gradient.withUnsafeMutableElements { gradient in
      finished.withUnsafeElements { finished in
        for index in 0..<count {
          let slope = cap.map { 1 - (finished[index] / $0) * (finished[index] / $0) } ?? 1
          gradient[index] *= scale * slope
        }
      }
    }
  }
}

/// x = cap · tanh(x / cap), in place (Gemma Team 2024, section 2).
func softCap(_ values: UnsafeMutablePointer<Float>, count: Int, cap: Float) {
  for index in 0..<count { values[index] = cap * tanh(values[index] / cap) }
}
