internal import Foundation
package import Tensors

/// Everything in a GGUF file but its data: metadata, names, types, shapes, and where the bytes are (version 3, little-endian).
package struct GGUFHeader: Sendable, Equatable {
  package struct Entry: Sendable, Equatable {
    package var name: String
    package var type: BlockType
    /// Slowest first, as everywhere else in this package; the file has them fastest first.
    package var shape: [Int]
    /// Offset into the data section.
    package var offset = 0

    package init(name: String, type: BlockType, shape: [Int], offset: Int = 0) {
      self.name = name
      self.type = type
      self.shape = shape
      self.offset = offset
    }

    /// - Precondition: the size fits an `Int`, which reading checks.
    package var byteCount: Int { shape.reduce(1, *) / type.blockLength * type.bytesPerBlock }
  }

  package var metadata: GGUFMetadata
  package var entries: [Entry]
  package var alignment = GGUFHeader.defaultAlignment
  /// Where the data section begins; known once the header was read or serialized.
  package var dataStart = 0

  static let magic: [UInt8] = Array("GGUF".utf8)
  package static let defaultAlignment = 32
  static let alignmentKey = "general.alignment"
  /// The longest string and array, and the longest name, that ggml reads.
  static let longest = 1 << 30
  static let nameLimit = 63

  package var dataLength: Int { entries.last.map { Self.aligned($0.offset + $0.byteCount, alignment) } ?? 0 }

  static func aligned(_ offset: Int, _ alignment: Int) -> Int { (offset + alignment - 1) / alignment * alignment }
}

// MARK: - Writing

extension GGUFHeader {
  /// Lays tensors out in the given order, without gaps but for the alignment.
  package init(layingOut tensors: [Entry], metadata: GGUFMetadata) {
    let alignment = metadata[Self.alignmentKey]?.integer ?? Self.defaultAlignment
    self.init(metadata: metadata, entries: [], alignment: alignment)
    for var entry in tensors {
      entry.offset = dataLength
      entries.append(entry)
    }
    dataStart = serialized().count
  }

  init(metadata: GGUFMetadata, entries: [Entry], alignment: Int) {
    self.metadata = metadata
    self.entries = entries
    self.alignment = alignment
  }

  /// The bytes before the data section, its padding included.
  package func serialized() -> [UInt8] {
    var out = Self.magic
    out.append(UInt32(3))
    out.append(Int64(entries.count))
    out.append(Int64(metadata.entries.count))
    for entry in metadata.entries {
      out.append(entry.key)
      out.append(entry.value.kind.rawValue)
      out.append(entry.value)
    }
    for entry in entries {
      out.append(entry.name)
      out.append(UInt32(entry.shape.count))
      for dimension in entry.shape.reversed() { out.append(Int64(dimension)) }
      out.append(entry.type.rawValue)
      out.append(UInt64(entry.offset))
    }
    out += [UInt8](repeating: 0, count: Self.aligned(out.count, alignment) - out.count)
    return out
  }
}

extension [UInt8] {
  fileprivate mutating func append<Value: FixedWidthInteger>(_ value: Value) {
    Swift.withUnsafeBytes(of: value.littleEndian) { self += $0 }
  }

  fileprivate mutating func append(_ string: String) {
    append(UInt64(string.utf8.count))
    self += Array(string.utf8)
  }

  fileprivate mutating func append(_ value: GGUFValue) {
    switch value {
    case .uint8(let value): append(value)
    case .int8(let value): append(UInt8(bitPattern: value))
    case .uint16(let value): append(value)
    case .int16(let value): append(value)
    case .uint32(let value): append(value)
    case .int32(let value): append(value)
    case .float32(let value): append(value.bitPattern)
    case .bool(let value): append(UInt8(value ? 1 : 0))
    case .string(let value): append(value)
    case .array(let kind, let elements):
      append(kind.rawValue)
      append(UInt64(elements.count))
      for element in elements { append(element) }
    case .uint64(let value): append(value)
    case .int64(let value): append(value)
    case .float64(let value): append(value.bitPattern)
    }
  }
}
