public import Models
public import Passes
import Tensors

/// The number formats of weights, as recipes spell them.
public enum NumberFormat: String, Sendable, Codable, CaseIterable {
  case int, fp8, mxfp4, mxfp8, nvfp4

  var bits: Int? {
    switch self {
    case .int: nil
    case .fp8, .mxfp8: 8
    case .mxfp4, .nvfp4: 4
    }
  }

  /// The group size that the format prescribes.
  var groupSize: GroupSize? {
    switch self {
    case .int, .fp8: nil
    case .mxfp4, .mxfp8: 32
    case .nvfp4: 16
    }
  }
}

/// What the zero points of asymmetric integers are.
public enum ZeroPointKind: String, Sendable, Codable, CaseIterable { case integer, real }

/// The number formats of a linear's input, as recipes spell them.
public enum InputFormat: String, Sendable, Codable, CaseIterable {
  case none
  /// By token, as it comes.
  case int8, int4, fp8
  /// By one scale from calibration.
  case int8Static = "int8_static", fp8Static = "fp8_static"
  /// By groups of 128 features.
  case fp8Group = "fp8_g128"
  case mxfp4, mxfp8, nvfp4

  public var quantization: InputQuantization? {
    switch self {
    case .none: nil
    case .int8: .int(8)
    case .int4: .int(4)
    case .int8Static: .intTensor(8)
    case .fp8: .fp8
    case .fp8Static: .fp8Tensor
    case .fp8Group: .fp8Group
    case .mxfp4: .mx(bits: 4)
    case .mxfp8: .mx(bits: 8)
    case .nvfp4: .nvfp4
    }
  }
}

/// Other options for some of the selected linears.
public struct QuantizationOverride: Sendable, Codable, Equatable, ListedOption {
  public var layers: LayerSelector
  public var numbers: NumberFormat?
  public var bits: Int?
  public var groupSize: GroupSize?
  public var symmetric: Bool?
  public var activations: InputFormat?

  public init(
    layers: LayerSelector, numbers: NumberFormat? = nil, bits: Int? = nil, groupSize: GroupSize? = nil, symmetric: Bool? = nil,
    activations: InputFormat? = nil
  ) {
    self.layers = layers
    self.numbers = numbers
    self.bits = bits
    self.groupSize = groupSize
    self.symmetric = symmetric
    self.activations = activations
  }

  public static var sample: QuantizationOverride { QuantizationOverride(layers: LayerSelector()) }

  private enum CodingKeys: String, CodingKey { case layers, numbers, bits, groupSize = "group_size", symmetric, activations }
}
