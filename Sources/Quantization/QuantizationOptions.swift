import Models
public import Passes
import Tensors

/// Columns of a row that share a scale, as recipes spell it: a number, or `channel` for the whole row.
public enum GroupSize: Sendable, Hashable, Codable, ExpressibleByIntegerLiteral {
  case columns(Int)
  case channel

  public init(integerLiteral value: Int) { self = .columns(value) }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let count = try? container.decode(Int.self) {
      // Other toolkits spell a whole row as −1.
      self = count == -1 ? .channel : .columns(count)
    } else if try container.decode(String.self) == "channel" {
      self = .channel
    } else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "a number of columns or \"channel\" is needed")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .columns(let count): try container.encode(count)
    case .channel: try container.encode("channel")
    }
  }
}

/// Other options for some of the selected linears.
public struct QuantizationOverride: Sendable, Codable, Equatable {
  public var layers: LayerSelector
  public var bits: Int?
  public var groupSize: GroupSize?
  public var symmetric: Bool?

  public init(layers: LayerSelector, bits: Int? = nil, groupSize: GroupSize? = nil, symmetric: Bool? = nil) {
    self.layers = layers
    self.bits = bits
    self.groupSize = groupSize
    self.symmetric = symmetric
  }

  private enum CodingKeys: String, CodingKey { case layers, bits, groupSize = "group_size", symmetric }
}

/// A pass that puts weights on an integer grid: the options all such passes share.
protocol IntegerQuantizer: Pass {
  var bits: Int { get }
  var groupSize: GroupSize { get }
  var symmetric: Bool { get }
  var layers: LayerSelector { get }
  var overrides: [QuantizationOverride] { get }
}

extension IntegerQuantizer {
  public var selectors: [LayerSelector] { [layers] + overrides.map(\.layers) }

  func validateGrid() throws(InvalidOption) {
    let allowed = [2, 3, 4, 8]
    let list = "2, 3, 4 or 8 are possible"
    guard allowed.contains(bits) else { throw InvalidOption("bits", "\(bits): \(list)") }
    func check(_ size: GroupSize, _ option: String) throws(InvalidOption) {
      if case .columns(let count) = size, count < 1 { throw InvalidOption(option, "\(count): a positive number, or channel") }
    }
    try check(groupSize, "group_size")
    for (index, override) in overrides.enumerated() {
      if let bits = override.bits, !allowed.contains(bits) { throw InvalidOption("overrides[\(index)].bits", "\(bits): \(list)") }
      if let size = override.groupSize { try check(size, "overrides[\(index)].group_size") }
    }
  }

  /// The scheme of a linear: the options, changed by every override that selects it, the last one winning.
  func scheme(of name: String, isEnd: Bool) -> QuantizationScheme {
    var (bits, size, symmetric) = (bits, groupSize, symmetric)
    for override in overrides where override.layers.contains(name, isEnd: isEnd) {
      bits = override.bits ?? bits
      size = override.groupSize ?? size
      symmetric = override.symmetric ?? symmetric
    }
    let granularity: QuantizationScheme.Granularity =
      switch size {
      case .columns(let count): .group(count)
      case .channel: .channel
      }
    return QuantizationScheme(bits: bits, granularity: granularity, symmetric: symmetric)
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    let scheme = scheme(of: linear.name, isEnd: linear.isEnd)
    let size = scheme.groupSize(columns: linear.columns)
    guard linear.columns % size == 0 else {
      throw InvalidOption(
        "group_size",
        "\(size) does not divide the \(linear.columns) columns of \(linear.name); give it an override with another size or \"channel\"")
    }
    var planned = linear
    let groups = linear.rows * (linear.columns / size)
    planned.storedBits =
      linear.rows * linear.columns * scheme.bits + groups * (linear.storageType.bitCount + (scheme.symmetric ? 0 : scheme.bits))
    planned.scheme = scheme.label
    return planned
  }
}

extension QuantizationScheme {
  /// In words, such as `int4 g128` or `int8 channel asym`.
  var label: String {
    let size =
      switch granularity {
      case .channel: "channel"
      case .group(let count): "g\(count)"
      }
    return "int\(bits) \(size)\(symmetric ? "" : " asym")"
  }
}
