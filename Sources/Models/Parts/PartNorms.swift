public import Tensors

/// The norms of a part of a model: what they multiply by and what they add, by their names inside a block, or in the whole model at its ends.
public struct PartNorms: Sendable, Equatable {
  /// Where a family stores weights less an offset, the offset is in these.
  public var weights: [String: [Float]]
  /// Of norms that add anything.
  public var biases: [String: [Float]]
  /// What the weights exceed the stored ones by.
  public let offset: Float
  /// What the checkpoint stores them as.
  public let storageType: DType
  /// As they were read: what is written of those that nobody changed.
  private let read: [String: [Float]]

  /// - Parameter stored: the weights as the checkpoint stores them.
  public init(_ stored: [String: [Float]] = [:], biases: [String: [Float]] = [:], offset: Float = 0, storageType: DType = .bfloat16) {
    read = stored
    weights = offset == 0 ? stored : stored.mapValues { $0.map { $0 + offset } }
    self.biases = biases
    self.offset = offset
    self.storageType = storageType
  }

  /// The weight of one of them.
  public subscript(name: String) -> [Float]? {
    get { weights[name] }
    set { weights[name] = newValue }
  }

  /// A weight as the checkpoint stores it: less the offset, and exactly what was read where nobody changed it.
  package func stored(_ name: String) -> [Float] {
    guard let weight = weights[name] else { preconditionFailure("there is no norm \(name)") }
    if let read = read[name], read.map({ $0 + offset }) == weight { return read }
    return weight.map { $0 - offset }
  }

  /// An element of a weight rounded to what its storage can hold.
  package func rounded(_ element: Float) -> Float { storageType.rounded(element - offset) + offset }

  /// The first of them, by name, whose weight or bias holds what is not finite.
  package var nonfinite: String? {
    (Array(weights) + Array(biases)).sorted { $0.key < $1.key }.first { $0.value.withUnsafeBufferPointer(Kernel.hasNonfinite) }?.key
  }
}
