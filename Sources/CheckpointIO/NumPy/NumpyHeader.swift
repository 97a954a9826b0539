internal import Foundation
package import Tensors

/// The header of a `.npy` array (numpy.lib.format, versions 1 to 3): type, order and shape as the text of a Python dictionary.
package struct NumpyHeader: Sendable, Equatable {
  package var dtype: DType
  package var shape: [Int]
  /// Whether the first dimension is the fastest.
  package var isFortranOrder = false
  package var isBigEndian = false
  /// Where the elements begin.
  package var dataStart = 0

  /// The longest header that is read; numpy itself stops at 10,000 characters.
  package static let limit = 1 << 16
  private static let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)

  package init(dtype: DType, shape: [Int]) { (self.dtype, self.shape) = (dtype, shape) }

  package var byteCount: Int { shape.reduce(1, *) * dtype.bitCount / 8 }
}

// MARK: - Types

extension NumpyHeader {
  /// Kind and size, without the order of bytes. NumPy has no bfloat16: two bytes of no type (`V2`) are what ml_dtypes and MLX write for it.
  private static let types: [(String, DType)] = [
    ("f2", .float16), ("f4", .float32), ("f8", .float64), ("c8", .complex64), ("b1", .bool), ("V2", .bfloat16), ("i1", .int8),
    ("i2", .int16), ("i4", .int32), ("i8", .int64), ("u1", .uint8), ("u2", .uint16), ("u4", .uint32), ("u8", .uint64),
  ]

  /// How numpy spells a type; `nil` where it has none.
  package static func spelling(of dtype: DType) -> String? {
    types.first { $0.1 == dtype }.map { (dtype.bitCount == 8 ? "|" : "<") + $0.0 }
  }

  /// The bytes before the elements, padded so that these begin at a multiple of 64; `nil` for a type numpy has no name for.
  package var serialized: [UInt8]? {
    guard let type = Self.spelling(of: dtype) else { return nil }
    let tuple = shape.count == 1 ? "(\(shape[0]),)" : "(" + shape.map(String.init).joined(separator: ", ") + ")"
    var text = Array("{'descr': '\(type)', 'fortran_order': False, 'shape': \(tuple), }".utf8)
    text += [UInt8](repeating: 0x20, count: 63 - (10 + text.count) % 64) + [0x0A]
    return Self.magic + [1, 0, UInt8(text.count & 0xFF), UInt8(text.count >> 8)] + text
  }
}

// MARK: - Reading

extension NumpyHeader {
  package struct Malformed: Error, Equatable { package let reason: String }

  /// - Parameter bytes: the beginning of the array, as far as `limit` at least where there is as much.
  package init(parsing bytes: UnsafeRawBufferPointer) throws(Malformed) {
    guard bytes.holds(Self.magic, at: 0), bytes.count >= 10 else { throw Malformed(reason: "not a NumPy array") }
    guard (1...3).contains(bytes[6]) else { throw Malformed(reason: "version \(bytes[6]) of the header is not known") }
    let lengthSize = bytes[6] == 1 ? 2 : 4
    let length = lengthSize == 2 ? bytes.little(UInt16.self, at: 8).map(Int.init) : bytes.little(UInt32.self, at: 8).map(Int.init)
    guard let length, length <= Self.limit, 8 + lengthSize + length <= bytes.count else { throw Malformed(reason: "the header is cut off") }
    let start = 8 + lengthSize
    var literal = PythonLiteral(bytes: Array(bytes[start..<start + length]))
    guard let members = literal.dictionary() else {
      throw Malformed(reason: "the header is no dictionary of descr, fortran_order and shape")
    }
    guard Set(members.map(\.key)) == ["descr", "fortran_order", "shape"], members.count == 3 else {
      throw Malformed(reason: "the header has the keys \(members.map(\.key).joined(separator: ", "))")
    }
    self.init(dtype: .uint8, shape: [])
    dataStart = start + length
    for (key, value) in members {
      switch (key, value) {
      case ("fortran_order", .bool(let value)): isFortranOrder = value
      case ("shape", .integers(let value)): shape = value
      case ("descr", .string(let value)):
        let order = value.first.map { "<>|=".contains($0) ? $0 : " " } ?? " "
        guard let type = Self.types.first(where: { order == " " ? false : value.dropFirst() == $0.0 }) else {
          throw Malformed(reason: "elements of type '\(value)' are not read")
        }
        (dtype, isBigEndian) = (type.1, order == ">" && type.1.bitCount > 8)
      default: throw Malformed(reason: "\(key) is of the wrong kind")
      }
    }
    guard !isBigEndian || dtype != .complex64 else { throw Malformed(reason: "big-endian complex numbers are not read") }
    guard shape.count <= 64, shape.byteCount(bits: dtype.bitCount) != nil else { throw Malformed(reason: "the size of \(shape) overflows") }
  }
}

/// As much of Python's syntax as array headers use.
private struct PythonLiteral {
  enum Value { case string(String), bool(Bool), integers([Int]) }
  let bytes: [UInt8]
  private var offset = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  /// The whole text as a dictionary; `nil` for anything else.
  mutating func dictionary() -> [(key: String, value: Value)]? {
    guard skip("{") else { return nil }
    var members: [(String, Value)] = []
    while !skip("}") {
      guard members.count < 8, case .string(let key)? = value(), skip(":"), let value = value() else { return nil }
      members.append((key, value))
      guard skip(",") || peek == UInt8(ascii: "}") else { return nil }
    }
    return peek == nil ? members : nil
  }

  private var peek: UInt8? {
    mutating get {
      while offset < bytes.count, [0x20, 0x0A, 0x09].contains(bytes[offset]) { offset += 1 }
      return offset < bytes.count ? bytes[offset] : nil
    }
  }

  private mutating func skip(_ character: Unicode.Scalar) -> Bool {
    guard peek == UInt8(ascii: character) else { return false }
    offset += 1
    return true
  }

  private mutating func word(_ word: String) -> Bool {
    guard bytes[offset...].starts(with: word.utf8) else { return false }
    offset += word.utf8.count
    return true
  }

  private mutating func value() -> Value? {
    switch peek {
    case UInt8(ascii: "'"), UInt8(ascii: "\""):
      let (quote, start) = (bytes[offset], offset + 1)
      guard let end = bytes[start...].firstIndex(of: quote), !bytes[start..<end].contains(0x5C) else { return nil }
      offset = end + 1
      return String(validating: bytes[start..<end], as: UTF8.self).map { .string($0) }
    case UInt8(ascii: "T"): return word("True") ? .bool(true) : nil
    case UInt8(ascii: "F"): return word("False") ? .bool(false) : nil
    case UInt8(ascii: "("):
      _ = skip("(")
      var numbers: [Int] = []
      while !skip(")") {
        guard numbers.count <= 64, let number = integer() else { return nil }
        numbers.append(number)
        guard skip(",") || peek == UInt8(ascii: ")") else { return nil }
      }
      return .integers(numbers)
    default: return nil
    }
  }

  private mutating func integer() -> Int? {
    _ = peek
    let digits = bytes[offset...].prefix { (0x30...0x39).contains($0) }
    offset += digits.count
    // Python 2 wrote an L behind long integers.
    if offset < bytes.count, bytes[offset] == UInt8(ascii: "L") { offset += 1 }
    return Int(String(decoding: digits, as: UTF8.self))
  }
}
