public import Models
public import Passes
import Tensors

/// Columns of a row that share a scale, as recipes spell it: a number, `channel` for the whole row, `tensor` for the whole matrix, or tiles
/// such as `128x128`.
public enum GroupSize: Sendable, Hashable, Codable, ExpressibleByIntegerLiteral {
  case columns(Int)
  case channel
  case tensor
  case block(rows: Int, columns: Int)

  public init(integerLiteral value: Int) { self = .columns(value) }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let count = try? container.decode(Int.self) {
      // Other toolkits spell a whole row as −1.
      self = count == -1 ? .channel : .columns(count)
      return
    }
    let text = try container.decode(String.self)
    let sides = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    switch text {
    case "channel": self = .channel
    case "tensor": self = .tensor
    case _ where sides.count == 2 && sides.allSatisfy({ $0 != nil }): self = .block(rows: sides[0]!, columns: sides[1]!)
    default:
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "a number of columns, \"channel\", \"tensor\" or tiles such as \"128x128\" are needed")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .columns(let count): try container.encode(count)
    case .channel: try container.encode("channel")
    case .tensor: try container.encode("tensor")
    case .block(let rows, let columns): try container.encode("\(rows)x\(columns)")
    }
  }

  var granularity: QuantizationScheme.Granularity {
    switch self {
    case .columns(let count): .group(count)
    case .channel: .channel
    case .tensor: .tensor
    case .block(let rows, let columns): .block(rows: rows, columns: columns)
    }
  }

  var isPositive: Bool {
    switch self {
    case .columns(let count): count > 0
    case .block(let rows, let columns): rows > 0 && columns > 0
    case .channel, .tensor: true
    }
  }
}

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
public struct QuantizationOverride: Sendable, Codable, Equatable {
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

  private enum CodingKeys: String, CodingKey { case layers, numbers, bits, groupSize = "group_size", symmetric, activations }
}
