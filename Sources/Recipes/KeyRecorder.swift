/// Finds every key a value can be spelled with, and the type that stands there: those it encodes, and those of optional properties that are
/// not set.
///
/// It is an encoder that keeps paths and types and throws the values away.
struct KeyRecorder: Encoder {
  private final class Paths { var found: [[String]: Any.Type?] = [:] }

  var codingPath: [any CodingKey] = []
  var userInfo: [CodingUserInfoKey: Any] { [:] }
  private let path: [String]
  private let paths: Paths

  private init(path: [String], paths: Paths) {
    self.path = path
    self.paths = paths
  }

  /// List elements go by their index.
  static func paths(of value: some Encodable) -> Set<[String]> { Set(types(of: value).keys) }

  /// By path; `nil` where a value is left out without a word of what it could be.
  static func types(of value: some Encodable) -> [[String]: Any.Type?] {
    let paths = Paths()
    // Nothing here throws; a value that refuses to be encoded has no keys.
    try? value.encode(to: KeyRecorder(path: [], paths: paths))
    return paths.found
  }

  func container<Key: CodingKey>(keyedBy _: Key.Type) -> KeyedEncodingContainer<Key> {
    KeyedEncodingContainer(Keyed(recorder: self))
  }
  func unkeyedContainer() -> any UnkeyedEncodingContainer { Unkeyed(recorder: self) }
  func singleValueContainer() -> any SingleValueEncodingContainer { Single(recorder: self) }

  private func inner(_ key: String, _ type: Any.Type? = nil) -> KeyRecorder {
    paths.found.updateValue(type, forKey: path + [key])
    return KeyRecorder(path: path + [key], paths: paths)
  }

  private struct Keyed<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let recorder: KeyRecorder
    var codingPath: [any CodingKey] { [] }

    mutating func encodeNil(forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encode(_ value: some Encodable, forKey key: Key) throws {
      try value.encode(to: recorder.inner(key.stringValue, type(of: value)))
    }
    mutating func encodeIfPresent<Value: Encodable>(_ value: Value?, forKey key: Key) throws {
      let inner = recorder.inner(key.stringValue, Value.self)
      try value?.encode(to: inner)
    }
    // The standard library calls these for optional properties of its own types.
    mutating func encodeIfPresent(_ value: Bool?, forKey key: Key) { _ = recorder.inner(key.stringValue, Bool.self) }
    mutating func encodeIfPresent(_ value: String?, forKey key: Key) { _ = recorder.inner(key.stringValue, String.self) }
    mutating func encodeIfPresent(_ value: Double?, forKey key: Key) { _ = recorder.inner(key.stringValue, Double.self) }
    mutating func encodeIfPresent(_ value: Float?, forKey key: Key) { _ = recorder.inner(key.stringValue, Float.self) }
    mutating func encodeIfPresent(_ value: Int?, forKey key: Key) { _ = recorder.inner(key.stringValue, Int.self) }
    mutating func encodeIfPresent(_ value: UInt64?, forKey key: Key) { _ = recorder.inner(key.stringValue, UInt64.self) }

    mutating func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type, forKey key: Key) -> KeyedEncodingContainer<Nested> {
      recorder.inner(key.stringValue).container(keyedBy: type)
    }
    mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
      recorder.inner(key.stringValue).unkeyedContainer()
    }
    mutating func superEncoder() -> any Encoder { recorder }
    mutating func superEncoder(forKey key: Key) -> any Encoder { recorder.inner(key.stringValue) }
  }

  private struct Unkeyed: UnkeyedEncodingContainer {
    let recorder: KeyRecorder
    var codingPath: [any CodingKey] { [] }
    var count = 0

    private mutating func next(_ type: Any.Type? = nil) -> KeyRecorder {
      defer { count += 1 }
      return recorder.inner("\(count)", type)
    }
    mutating func encodeNil() { _ = next() }
    mutating func encode(_ value: some Encodable) throws { try value.encode(to: next(type(of: value))) }
    mutating func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
      next().container(keyedBy: type)
    }
    mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { next().unkeyedContainer() }
    mutating func superEncoder() -> any Encoder { next() }
  }

  private struct Single: SingleValueEncodingContainer {
    let recorder: KeyRecorder
    var codingPath: [any CodingKey] { [] }

    mutating func encodeNil() {}
    mutating func encode(_ value: Bool) {}
    mutating func encode(_ value: String) {}
    mutating func encode(_ value: Double) {}
    mutating func encode(_ value: Float) {}
    mutating func encode(_ value: Int) {}
    mutating func encode(_ value: Int8) {}
    mutating func encode(_ value: Int16) {}
    mutating func encode(_ value: Int32) {}
    mutating func encode(_ value: Int64) {}
    mutating func encode(_ value: UInt) {}
    mutating func encode(_ value: UInt8) {}
    mutating func encode(_ value: UInt16) {}
    mutating func encode(_ value: UInt32) {}
    mutating func encode(_ value: UInt64) {}
    mutating func encode(_ value: some Encodable) throws { try value.encode(to: recorder) }
  }
}
