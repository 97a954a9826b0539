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

extension Weight {
  /// Whether some number of it, or of what stores it, is not finite.
  var holdsNonfinite: Bool {
    switch self {
    case let stored as StoredWeight: stored.tensor.holdsNonfinite
    case let quantized as QuantizedMatrix: quantized.holdsNonfinite
    case let factors as FactoredWeight: factors.input.holdsNonfinite || factors.output.holdsNonfinite
    case let blocks as BlockQuantizedMatrix: blocks.holdsNonfinite
    default: !dense().isFinite
    }
  }
}
