/// Finds every key a value can be spelled with: those it encodes, and those of optional properties that are not set.
///
/// It is an encoder that keeps paths and throws the values away.
struct KeyRecorder: Encoder {
  private final class Paths { var found: Set<[String]> = [] }

  var codingPath: [any CodingKey] = []
  var userInfo: [CodingUserInfoKey: Any] { [:] }
  private let path: [String]
  private let paths: Paths

  private init(path: [String], paths: Paths) {
    self.path = path
    self.paths = paths
  }

  /// List elements go by their index.
  static func paths(of value: some Encodable) -> Set<[String]> {
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

  private func inner(_ key: String) -> KeyRecorder {
    paths.found.insert(path + [key])
    return KeyRecorder(path: path + [key], paths: paths)
  }

  private struct Keyed<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let recorder: KeyRecorder
    var codingPath: [any CodingKey] { [] }

    mutating func encodeNil(forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encode(_ value: some Encodable, forKey key: Key) throws { try value.encode(to: recorder.inner(key.stringValue)) }
    mutating func encodeIfPresent(_ value: (some Encodable)?, forKey key: Key) throws {
      let inner = recorder.inner(key.stringValue)
      try value?.encode(to: inner)
    }
    // The standard library calls these for optional properties of its own types.
    mutating func encodeIfPresent(_ value: Bool?, forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encodeIfPresent(_ value: String?, forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encodeIfPresent(_ value: Double?, forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encodeIfPresent(_ value: Float?, forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encodeIfPresent(_ value: Int?, forKey key: Key) { _ = recorder.inner(key.stringValue) }
    mutating func encodeIfPresent(_ value: UInt64?, forKey key: Key) { _ = recorder.inner(key.stringValue) }

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

    private mutating func next() -> KeyRecorder {
      defer { count += 1 }
      return recorder.inner("\(count)")
    }
    mutating func encodeNil() { _ = next() }
    mutating func encode(_ value: some Encodable) throws { try value.encode(to: next()) }
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
