public import Passes

/// How large the result may be, as recipes spell it: `4.25bpw` for bits per weight of the layers in question, or `3GiB` for all tensors of the
/// checkpoint.
public enum SizeTarget: Sendable, Hashable, Codable, SpelledOption {
  case bitsPerWeight(Double)
  case bytes(Int)

  public static var spelling: String { "bits per weight such as 4.25bpw, or bytes of the checkpoint such as 3GiB" }

  private static let units: [(suffix: String, bytes: Double)] = [
    ("kib", 1024), ("mib", 1_048_576), ("gib", 1_073_741_824), ("kb", 1e3), ("mb", 1e6), ("gb", 1e9), ("b", 1),
  ]

  /// - Returns: `nil` for a text that is no size.
  public init?(_ text: String) {
    let text = text.lowercased().filter { !$0.isWhitespace }
    if text.hasSuffix("bpw") {
      guard let value = Double(text.dropLast(3)), value > 0, value <= 64 else { return nil }
      self = .bitsPerWeight(value)
      return
    }
    for unit in Self.units where text.hasSuffix(unit.suffix) {
      guard let value = Double(text.dropLast(unit.suffix.count)), value > 0, value * unit.bytes < 1e18 else { return nil }
      self = .bytes(Int(value * unit.bytes))
      return
    }
    return nil
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let value = SizeTarget(try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "bits per weight such as 4.25bpw, or bytes such as 700MB or 3GiB, are needed")
    }
    self = value
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

extension SizeTarget: CustomStringConvertible {
  public var description: String {
    switch self {
    case .bitsPerWeight(let bits): "\(bits)bpw"
    case .bytes(let count): "\(count)B"
    }
  }
}
