/// Where the zeros of a sparse weight may lie.
public enum SparsityPattern: Sendable, Hashable {
  /// Anywhere.
  case unstructured
  /// Of every `group` consecutive inputs of an output, at most `kept` are not zero: 2:4 is what sparse tensor cores multiply by.
  case grouped(kept: Int, group: Int)

  /// The share of zeros that the pattern prescribes; `nil` where it leaves that open.
  public var sparsity: Double? {
    switch self {
    case .unstructured: nil
    case .grouped(let kept, let group): 1 - Double(kept) / Double(group)
    }
  }

  /// Whether groups fill a row of so many inputs.
  public func fits(columns: Int) -> Bool {
    switch self {
    case .unstructured: true
    case .grouped(_, let group): columns % group == 0
    }
  }
}

extension SparsityPattern: CustomStringConvertible {
  /// `unstructured` or, as the field writes it, `2:4`.
  public init?(_ text: String) {
    if text == "unstructured" {
      self = .unstructured
      return
    }
    let sides = text.split(separator: ":", omittingEmptySubsequences: false).map { Int($0) }
    guard sides.count == 2, let kept = sides[0], let group = sides[1], kept > 0, group > kept, group <= 64 else { return nil }
    self = .grouped(kept: kept, group: group)
  }

  public var description: String {
    switch self {
    case .unstructured: "unstructured"
    case .grouped(let kept, let group): "\(kept):\(group)"
    }
  }
}

extension SparsityPattern: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let pattern = Self(try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "\"unstructured\" or N:M, of M inputs N to be kept, such as 2:4, are needed")
    }
    self = pattern
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
