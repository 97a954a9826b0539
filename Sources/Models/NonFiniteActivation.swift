internal import Tensors

/// An infinity or NaN that arose while a model ran, though all its weights are finite.
public struct NonFiniteActivation: Error, Equatable, Sendable, CustomStringConvertible {
  /// Name of the block it first arose in, such as `model.layers.3`.
  public let block: String
  /// What put it out: a linear or a norm by its name inside the block, or `attention`, `activation`, `residual stream`, `logits`.
  public let layer: String

  public init(block: String, layer: String) {
    self.block = block
    self.layer = layer
  }

  public var description: String {
    "\(block): NaN or infinity in what \(layer) puts out, the first place where it arises; the weights are finite, so what flows through the "
      + "model has outgrown single precision"
  }
}

extension Matrix {
  /// Whether no element is infinite or not a number.
  package var isFinite: Bool { !elements.withUnsafeBufferPointer(Kernel.hasNonfinite) }
}

extension Block {
  /// The first linear, by name, whose weight or bias holds what is not finite.
  ///
  /// - Parameter revisions: of linears that need not be looked at again.
  package func nonfiniteLinear(besides revisions: [LinearName: Linear.Revision] = [:]) -> LinearName? {
    linears.sorted { $0.key.rawValue < $1.key.rawValue }.first { name, linear in
      linear.revision != revisions[name]
        && (linear.weight.holdsNonfinite || linear.bias?.withUnsafeBufferPointer(Kernel.hasNonfinite) == true)
    }?.key
  }

  /// The first norm, by name, whose weight or bias holds what is not finite.
  package var nonfiniteNorm: String? {
    (Array(norms) + Array(normBiases)).sorted { $0.key < $1.key }.first { $0.value.withUnsafeBufferPointer(Kernel.hasNonfinite) }?.key
  }
}

extension Weight {
  fileprivate var holdsNonfinite: Bool {
    switch self {
    case let stored as StoredWeight: stored.tensor.holdsNonfinite
    case let quantized as QuantizedMatrix: quantized.holdsNonfinite
    case let factors as FactoredWeight: factors.input.holdsNonfinite || factors.output.holdsNonfinite
    case let blocks as BlockQuantizedMatrix: blocks.holdsNonfinite
    default: !dense().isFinite
    }
  }
}
