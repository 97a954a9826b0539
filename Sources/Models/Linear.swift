public import Tensors

/// The name of a linear layer inside its block, such as `self_attn.q_proj`.
public struct LinearName: RawRepresentable, Hashable, Sendable, Codable, ExpressibleByStringLiteral, CustomStringConvertible {
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
  public init(stringLiteral value: String) { rawValue = value }
  public var description: String { rawValue }
}

/// A linear layer: y = x · weightᵀ + bias.
public struct Linear: Sendable {
  public var weight: any Weight { didSet { revision = Revision() } }
  public var bias: [Float]? { didSet { revision = Revision() } }
  /// How a runtime quantizes what this layer reads before it multiplies; `nil` where it does not.
  public var inputQuantization: InputQuantization? { didSet { revision = Revision() } }
  /// Changes whenever the layer does: how calibration knows which of its cached activations still hold.
  package private(set) var revision = Revision()

  /// What the checkpoint stores its dense numbers as: dense results are written so.
  public let storageType: DType
  /// Whether the checkpoint stores dense numbers as [inputs × outputs].
  public let storesTransposed: Bool
  /// What scales are rounded to before anything is quantized with them: the storage type, unless the output's format prefers another.
  public var scaleType: DType

  public init(
    weight: any Weight, bias: [Float]? = nil, storageType: DType = .bfloat16, inputQuantization: InputQuantization? = nil,
    storesTransposed: Bool = false
  ) {
    self.weight = weight
    self.bias = bias
    self.inputQuantization = inputQuantization
    self.storageType = storageType
    self.storesTransposed = storesTransposed
    scaleType = storageType
  }

  /// An identity and nothing else: two layers share one only if neither was changed since they were copies.
  package final class Revision: Sendable, Equatable {
    package static func == (a: Revision, b: Revision) -> Bool { a === b }
  }
}

/// The linears that read one and the same input, in the order the block computes them.
public struct InputGroup: Sendable, Hashable {
  public let linears: [LinearName]
  public init(_ linears: [LinearName]) { self.linears = linears }
}
