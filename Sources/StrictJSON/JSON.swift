/// A JSON value as it stands in its file: members in their order, numbers in their spelling.
///
/// Foundation's decoders neither report a repeated key, nor tell `4` from `4.0`, nor keep keys apart that are canonically equivalent
/// Unicode (two different tokens of a vocabulary may be); safetensors headers, `config.json` and `tokenizer.json` need all three.
public enum JSON: Sendable, Equatable {
  case null
  case bool(Bool)
  /// The literal, unchanged: `1e-05` stays `1e-05`.
  case number(String)
  case string(String)
  case array([JSON])
  case object([Member])

  public struct Member: Sendable, Equatable {
    public var key: String
    public var value: JSON

    public init(_ key: String, _ value: JSON) {
      self.key = key
      self.value = value
    }
  }
}

extension JSON {
  /// The value of the first member named `key`, compared code point by code point; `nil` where there is none.
  public subscript(key: String) -> JSON? {
    get {
      guard case .object(let members) = self else { return nil }
      return members.first { $0.key.utf8.elementsEqual(key.utf8) }?.value
    }
    set {
      guard case .object(var members) = self else { return }
      let position = members.firstIndex { $0.key.utf8.elementsEqual(key.utf8) }
      switch (position, newValue) {
      case (let position?, let value?): members[position].value = value
      case (let position?, nil): members.remove(at: position)
      case (nil, let value?): members.append(Member(key, value))
      case (nil, nil): break
      }
      self = .object(members)
    }
  }

  public var members: [Member]? { if case .object(let members) = self { members } else { nil } }
  public var elements: [JSON]? { if case .array(let elements) = self { elements } else { nil } }
  public var string: String? { if case .string(let text) = self { text } else { nil } }
  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  public var isNull: Bool { self == .null }

  /// The value of an integer literal; `4.0` and `4e0` are not integers.
  public var integer: Int? { if case .number(let text) = self { Int(text) } else { nil } }
  public var double: Double? { if case .number(let text) = self { Double(text) } else { nil } }

  public static func integer(_ value: Int) -> JSON { .number(String(value)) }
  /// A finite number, or `null` for what JSON cannot spell.
  public static func double(_ value: Double) -> JSON { value.isFinite ? .number("\(value)") : .null }
}
