/// Where and why a text is not JSON.
public struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Offset of the offending byte.
  public let offset: Int
  /// One-based position of the same byte; columns count bytes.
  public let line: Int, column: Int
  public let reason: String

  public var description: String { "line \(line), column \(column): \(reason)" }
}

extension JSON {
  /// Parses one value that fills the text, white space around it apart (RFC 8259).
  ///
  /// - Parameter allowsRepeatedKeys: whether an object may hold one key twice; the file formats here forbid it.
  public init(parsing bytes: some Sequence<UInt8>, allowsRepeatedKeys: Bool = false) throws(JSONError) {
    let copy = ContiguousArray(bytes)
    let result: Result<JSON, JSONError> = copy.withUnsafeBufferPointer { buffer in
      var parser = JSONParser(buffer, allowsRepeatedKeys: allowsRepeatedKeys)
      do throws(JSONError) { return .success(try parser.document()) } catch { return .failure(error) }
    }
    self = try result.get()
  }

  public init(parsing text: String) throws(JSONError) { try self.init(parsing: text.utf8) }
}

/// A recursive-descent parser over bytes that are checked to be UTF-8 as strings are cut from them.
struct JSONParser {
  private let bytes: UnsafeBufferPointer<UInt8>
  private let allowsRepeatedKeys: Bool
  private var position = 0
  private var depth = 0
  private static let depthLimit = 256

  init(_ bytes: UnsafeBufferPointer<UInt8>, allowsRepeatedKeys: Bool) {
    self.bytes = bytes
    self.allowsRepeatedKeys = allowsRepeatedKeys
  }

  mutating func document() throws(JSONError) -> JSON {
    let value = try value()
    skipSpace()
    guard position == bytes.count else { throw error("text after the value") }
    return value
  }

  private func error(_ reason: String, at offset: Int? = nil) -> JSONError {
    let offset = min(offset ?? position, bytes.count)
    let before = bytes[..<offset]
    let line = 1 + before.count { $0 == UInt8(ascii: "\n") }
    let column = offset - (before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0) + 1
    return JSONError(offset: offset, line: line, column: column, reason: reason)
  }

  private mutating func skipSpace() {
    while position < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[position]) { position += 1 }
  }

  private mutating func take(_ byte: Character) -> Bool {
    guard position < bytes.count, bytes[position] == byte.asciiValue! else { return false }
    position += 1
    return true
  }

  private mutating func value() throws(JSONError) -> JSON {
    skipSpace()
    guard position < bytes.count else { throw error("the text ends where a value is needed") }
    switch bytes[position] {
    case UInt8(ascii: "{"): return try nested { parser throws(JSONError) in try parser.object() }
    case UInt8(ascii: "["): return try nested { parser throws(JSONError) in try parser.array() }
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return .number(try number())
    }
  }

  private mutating func nested(_ body: (inout JSONParser) throws(JSONError) -> JSON) throws(JSONError) -> JSON {
    depth += 1
    guard depth <= Self.depthLimit else { throw error("nested deeper than \(Self.depthLimit)") }
    let value = try body(&self)
    depth -= 1
    return value
  }

  private mutating func word(_ text: StaticString, _ value: JSON) throws(JSONError) -> JSON {
    let count = text.utf8CodeUnitCount
    guard position + count <= bytes.count,
      bytes[position..<position + count].elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: count))
    else { throw error("not a JSON value") }
    position += count
    return value
  }

  private mutating func object() throws(JSONError) -> JSON {
    position += 1
    var members: [JSON.Member] = []
    var places: [[UInt8]: Int] = [:]
    skipSpace()
    if take("}") { return .object(members) }
    repeat {
      skipSpace()
      guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else { throw error("an object needs a quoted key here") }
      let start = position
      let key = try string()
      let earlier = places.updateValue(members.count, forKey: Array(key.utf8))
      guard earlier == nil || allowsRepeatedKeys else { throw error("the key \"\(key)\" is repeated", at: start) }
      skipSpace()
      guard take(":") else { throw error("':' is missing after the key \"\(key)\"") }
      let member = JSON.Member(key, try value())
      // Where repetition is allowed the last value counts, in the place of the first, as in every other reader.
      if let earlier {
        places[Array(key.utf8)] = earlier
        members[earlier] = member
      } else {
        members.append(member)
      }
      skipSpace()
    } while take(",")
    guard take("}") else { throw error("',' or '}' is missing in an object") }
    return .object(members)
  }

  private mutating func array() throws(JSONError) -> JSON {
    position += 1
    var elements: [JSON] = []
    skipSpace()
    if take("]") { return .array(elements) }
    repeat {
      elements.append(try value())
      skipSpace()
    } while take(",")
    guard take("]") else { throw error("',' or ']' is missing in an array") }
    return .array(elements)
  }

  private mutating func number() throws(JSONError) -> String {
    let start = position
    func digit(_ at: Int) -> Bool { at < bytes.count && (0x30...0x39).contains(bytes[at]) }
    func digits(_ from: Int) -> Int {
      var end = from
      while digit(end) { end += 1 }
      return end
    }
    var end = start
    if end < bytes.count, bytes[end] == UInt8(ascii: "-") { end += 1 }
    guard digit(end) else { throw error("not a JSON value") }
    end = bytes[end] == UInt8(ascii: "0") ? end + 1 : digits(end)
    if end < bytes.count, bytes[end] == UInt8(ascii: ".") {
      guard digit(end + 1) else { throw error("a digit is missing after the decimal point", at: end) }
      end = digits(end + 1)
    }
    if end < bytes.count, bytes[end] == UInt8(ascii: "e") || bytes[end] == UInt8(ascii: "E") {
      var exponent = end + 1
      if exponent < bytes.count, bytes[exponent] == UInt8(ascii: "+") || bytes[exponent] == UInt8(ascii: "-") { exponent += 1 }
      guard digit(exponent) else { throw error("a digit is missing in the exponent", at: end) }
      end = digits(exponent)
    }
    position = end
    return String(decoding: bytes[start..<end], as: UTF8.self)
  }

  private mutating func string() throws(JSONError) -> String {
    let opening = position
    position += 1
    var start = position
    var text: [UInt8] = []
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "\""):
        let piece = bytes[start..<position]
        if !text.isEmpty { text += piece }
        let string = text.isEmpty ? String(validating: piece, as: UTF8.self) : String(validating: text, as: UTF8.self)
        guard let string else { throw error("the string is not UTF-8", at: opening) }
        position += 1
        return string
      case UInt8(ascii: "\\"):
        text += bytes[start..<position]
        try escape(into: &text)
        start = position
      case 0..<0x20: throw error("a control character stands in a string")
      default: position += 1
      }
    }
    throw error("the string has no closing quote", at: opening)
  }

  private mutating func escape(into text: inout [UInt8]) throws(JSONError) {
    guard position + 1 < bytes.count else { throw error("the text ends in an escape") }
    let letter = bytes[position + 1]
    position += 2
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(letter)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var code = try hexadecimal()
      if (0xD800..<0xDC00).contains(code) {
        guard position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"), bytes[position + 1] == UInt8(ascii: "u") else {
          throw error("a high surrogate stands alone")
        }
        position += 2
        let low = try hexadecimal()
        guard (0xDC00..<0xE000).contains(low) else { throw error("a high surrogate stands alone") }
        code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw error("a low surrogate stands alone") }
      text += Array(String(Character(scalar)).utf8)
    default: throw error("unknown escape", at: position - 1)
    }
  }

  private mutating func hexadecimal() throws(JSONError) -> UInt32 {
    guard position + 4 <= bytes.count, bytes[position..<position + 4].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else {
      throw error("four hexadecimal digits are needed")
    }
    defer { position += 4 }
    return UInt32(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)!
  }
}
