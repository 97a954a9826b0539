/// A value of a GGUF file's metadata, in the type it is stored as.
public enum GGUFValue: Sendable, Equatable {
  case uint8(UInt8), int8(Int8), uint16(UInt16), int16(Int16), uint32(UInt32), int32(Int32), float32(Float), bool(Bool)
  case string(String)
  /// Elements of one kind, which an empty array has too; arrays are not nested.
  case array(Kind, [GGUFValue])
  case uint64(UInt64), int64(Int64), float64(Double)

  /// Raw values are the ids in the file.
  public enum Kind: UInt32, Sendable, CaseIterable {
    case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes of a value; for strings and arrays the least there can be.
    var size: Int {
      switch self {
      case .uint8, .int8, .bool: 1
      case .uint16, .int16: 2
      case .uint32, .int32, .float32: 4
      case .uint64, .int64, .float64, .string: 8
      case .array: 12
      }
    }
  }

  public var kind: Kind {
    switch self {
    case .uint8: .uint8
    case .int8: .int8
    case .uint16: .uint16
    case .int16: .int16
    case .uint32: .uint32
    case .int32: .int32
    case .float32: .float32
    case .bool: .bool
    case .string: .string
    case .array: .array
    case .uint64: .uint64
    case .int64: .int64
    case .float64: .float64
    }
  }
}

extension GGUFValue {
  /// A whole number, whatever its width; `nil` where it is none or does not fit.
  public var integer: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(exactly: value)
    default: nil
    }
  }

  public var double: Double? {
    switch self {
    case .float32(let value): Double(value)
    case .float64(let value): value
    default: integer.map { Double($0) }
    }
  }

  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  public var string: String? { if case .string(let value) = self { value } else { nil } }
  public var elements: [GGUFValue]? { if case .array(_, let elements) = self { elements } else { nil } }

  public static func strings(_ values: [String]) -> GGUFValue { .array(.string, values.map { .string($0) }) }
  public static func floats(_ values: [Float]) -> GGUFValue { .array(.float32, values.map { .float32($0) }) }
  public static func integers(_ values: [Int32]) -> GGUFValue { .array(.int32, values.map { .int32($0) }) }
  /// A count, which files spell with 32 bits.
  public static func count(_ value: Int) -> GGUFValue { .uint32(UInt32(clamping: value)) }
}

/// Keys and values of a GGUF file, in its order.
public struct GGUFMetadata: Sendable, Equatable {
  public struct Entry: Sendable, Equatable {
    public var key: String
    public var value: GGUFValue
  }

  public private(set) var entries: [Entry] = []
  private var places: [String: Int] = [:]

  public init() {}

  /// Setting a key that is there keeps its place; setting `nil` removes it.
  public subscript(key: String) -> GGUFValue? {
    get { places[key].map { entries[$0].value } }
    set {
      switch (places[key], newValue) {
      case (let place?, let value?): entries[place].value = value
      case (nil, let value?):
        places[key] = entries.count
        entries.append(Entry(key: key, value: value))
      case (let place?, nil):
        entries.remove(at: place)
        places = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($1.key, $0) })
      case (nil, nil): break
      }
    }
  }
}
