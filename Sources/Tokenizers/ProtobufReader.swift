/// The wire format of protocol buffers: fields one after another, as far as `tokenizer.model` needs it.
///
/// Source: "Encoding" of the protocol buffers documentation. Groups are not read; nothing is copied but what is asked for.
struct ProtobufReader {
  struct Malformed: Error { let offset: Int }

  enum Value {
    case varint(UInt64)
    case fixed32(UInt32)
    case fixed64
    case bytes(Range<Int>)
  }

  private let data: Bytes
  private var position: Int
  private let end: Int

  init(_ data: Bytes, range: Range<Int>? = nil) {
    self.data = data
    position = range?.lowerBound ?? 0
    end = range?.upperBound ?? data.count
  }

  func message(_ range: Range<Int>) -> ProtobufReader { ProtobufReader(data, range: range) }

  func bytes(_ range: Range<Int>) -> Bytes { Bytes(data[range]) }

  /// The next field; `nil` at the end of the message.
  mutating func next() throws(Malformed) -> (number: Int, value: Value)? {
    guard position < end else { return nil }
    let start = position
    let tag = try varint()
    guard let number = Int(exactly: tag >> 3), number > 0 else { throw Malformed(offset: start) }
    switch tag & 7 {
    case 0: return (number, .varint(try varint()))
    case 1:
      _ = try take(8)
      return (number, .fixed64)
    case 2:
      let count = try varint()
      guard let count = Int(exactly: count) else { throw Malformed(offset: start) }
      return (number, .bytes(try take(count)))
    case 5:
      let range = try take(4)
      return (number, .fixed32(range.reversed().reduce(0) { $0 << 8 | UInt32(data[$1]) }))
    default: throw Malformed(offset: start)
    }
  }

  private mutating func take(_ count: Int) throws(Malformed) -> Range<Int> {
    guard count <= end - position else { throw Malformed(offset: position) }
    defer { position += count }
    return position..<position + count
  }

  private mutating func varint() throws(Malformed) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<10 {
      guard position < end else { throw Malformed(offset: position) }
      let byte = data[position]
      position += 1
      guard index < 9 || byte <= 1 else { throw Malformed(offset: position - 1) }
      value |= UInt64(byte & 0x7F) << (7 * UInt64(index))
      if byte & 0x80 == 0 { return value }
    }
    throw Malformed(offset: position)
  }
}
