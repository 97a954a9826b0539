internal import Tensors

extension GGUFHeader {
  /// Parses and checks the header of a file: everything ggml rejects, and what it cannot have meant.
  ///
  /// Nothing is allocated that the file's own length does not justify.
  ///
  /// - Parameter file: the whole file, mapped.
  package init(parsing file: UnsafeRawBufferPointer, path: String) throws(CheckpointError) {
    var reader = Reader(file: file, path: path)
    guard file.count >= 4, Array(file[..<4]) == Self.magic else {
      throw .malformedHeader(path: path, offset: 0, reason: "a GGUF file begins with the letters GGUF")
    }
    reader.offset = 4
    let version = try reader.integer(UInt32.self)
    guard ![1, 2, 3].contains(version.byteSwapped) else {
      throw .notRead(
        path: path, reason: "a big-endian GGUF file, which is not read; gguf-convert-endian of the package gguf turns it round")
    }
    guard version == 2 || version == 3 else {
      guard version != 0, version < 16 else { throw reader.malformed("version \(version); 2 and 3 are read", at: 4) }
      throw .notRead(path: path, reason: "GGUF of version \(version); 2 and 3 are read")
    }
    // A tensor takes 24 bytes at least, a key with its value 13.
    let tensors = try reader.count(atLeast: 24, of: "tensors")
    let keys = try reader.count(atLeast: 13, of: "keys")
    self.init(metadata: try reader.metadata(keys), entries: [], alignment: Self.defaultAlignment)
    if let value = metadata[Self.alignmentKey] {
      guard case .uint32(let size) = value, size > 0, size & (size - 1) == 0 else {
        throw .malformedHeader(path: path, offset: 0, reason: "\(Self.alignmentKey) is not a power of two stored with 32 bits")
      }
      alignment = Int(size)
    }
    entries.reserveCapacity(tensors)
    var (names, end): (Set<[UInt8]>, Int) = ([], 0)
    for _ in 0..<tensors {
      let start = reader.offset
      let entry = try reader.entry()
      func malformed(_ reason: String) -> CheckpointError {
        .malformedTensor(path: path, tensor: entry.name, offset: start, reason: reason)
      }
      guard names.insert(Array(entry.name.utf8)).inserted else { throw malformed("the name occurs twice") }
      guard entry.offset == end else { throw malformed("its data lies at \(entry.offset), the tensors before it end at \(end)") }
      let (next, overflow) = (entry.offset + entry.byteCount).addingReportingOverflow(alignment - 1)
      guard !overflow, next < Int.max / 2 else { throw malformed("its size overflows") }
      end = next / alignment * alignment
      entries.append(entry)
    }
    dataStart = Self.aligned(reader.offset, alignment)
    // The padding after the last tensor may be missing: nothing is in it.
    let needed = dataStart + (entries.last.map { $0.offset + $0.byteCount } ?? 0)
    guard entries.isEmpty || needed <= file.count else { throw .wrongLength(path: path, needed: needed, found: file.count) }
  }

  /// A cursor that never leaves the file.
  private struct Reader {
    let file: UnsafeRawBufferPointer
    let path: String
    var offset = 0

    init(file: UnsafeRawBufferPointer, path: String) {
      self.file = file
      self.path = path
    }

    var left: Int { file.count - offset }

    func malformed(_ reason: String, at place: Int? = nil) -> CheckpointError {
      .malformedHeader(path: path, offset: place ?? offset, reason: reason)
    }

    mutating func integer<Value: FixedWidthInteger>(_: Value.Type) throws(CheckpointError) -> Value {
      let size = Value.bitWidth / 8
      guard size <= left else { throw malformed("the file ends inside the header") }
      defer { offset += size }
      return Value(littleEndian: file.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    /// A number of things that take so many bytes each at least.
    mutating func count(atLeast size: Int, of what: String) throws(CheckpointError) -> Int {
      let place = offset
      let count = try integer(Int64.self)
      guard count >= 0 else { throw malformed("\(count) \(what)", at: place) }
      guard count <= left / size else { throw malformed("\(count) \(what) do not fit into the \(left) bytes that are left", at: place) }
      return Int(count)
    }

    mutating func string(_ what: String) throws(CheckpointError) -> String {
      let place = offset
      let count = try integer(UInt64.self)
      guard count <= GGUFHeader.longest else { throw malformed("\(what) of \(count) bytes", at: place) }
      guard count <= left else { throw malformed("\(what) of \(count) bytes ends after the file", at: place) }
      let bytes = UnsafeRawBufferPointer(rebasing: file[offset..<offset + Int(count)])
      guard let text = String(validating: bytes, as: UTF8.self) else { throw malformed("\(what) is not UTF-8", at: place) }
      offset += Int(count)
      return text
    }

    mutating func kind() throws(CheckpointError) -> GGUFValue.Kind {
      let place = offset
      let id = try integer(UInt32.self)
      guard let kind = GGUFValue.Kind(rawValue: id) else { throw malformed("unknown value type \(id)", at: place) }
      return kind
    }

    mutating func value(_ kind: GGUFValue.Kind) throws(CheckpointError) -> GGUFValue {
      switch kind {
      case .uint8: return .uint8(try integer(UInt8.self))
      case .int8: return .int8(try integer(Int8.self))
      case .uint16: return .uint16(try integer(UInt16.self))
      case .int16: return .int16(try integer(Int16.self))
      case .uint32: return .uint32(try integer(UInt32.self))
      case .int32: return .int32(try integer(Int32.self))
      case .float32: return .float32(Float(bitPattern: try integer(UInt32.self)))
      case .bool: return .bool(try integer(UInt8.self) != 0)
      case .string: return .string(try string("a string"))
      case .uint64: return .uint64(try integer(UInt64.self))
      case .int64: return .int64(try integer(Int64.self))
      case .float64: return .float64(Double(bitPattern: try integer(UInt64.self)))
      case .array:
        let element = try self.kind()
        guard element != .array else { throw malformed("an array of arrays") }
        let place = offset
        let count = try integer(UInt64.self)
        guard count <= GGUFHeader.longest, Int(count) <= left / element.size else {
          throw malformed("an array of \(count) elements does not fit into the \(left) bytes that are left", at: place)
        }
        var elements: [GGUFValue] = []
        elements.reserveCapacity(Int(count))
        for _ in 0..<Int(count) { elements.append(try value(element)) }
        return .array(element, elements)
      }
    }

    mutating func metadata(_ count: Int) throws(CheckpointError) -> GGUFMetadata {
      var metadata = GGUFMetadata()
      for _ in 0..<count {
        let place = offset
        let key = try string("a key")
        guard !key.isEmpty else { throw malformed("an empty key", at: place) }
        guard metadata[key] == nil else { throw malformed("the key \"\(key)\" occurs twice", at: place) }
        metadata[key] = try value(try kind())
      }
      return metadata
    }

    mutating func entry() throws(CheckpointError) -> Entry {
      let start = offset
      let name = try string("a tensor's name")
      func malformed(_ reason: String) -> CheckpointError { .malformedTensor(path: path, tensor: name, offset: start, reason: reason) }
      guard name.utf8.count <= GGUFHeader.nameLimit else { throw malformed("a name of \(name.utf8.count) bytes") }
      let rank = try integer(UInt32.self)
      guard rank <= 4 else { throw malformed("\(rank) dimensions; there are at most 4") }
      var shape: [Int] = []
      var elements = 1
      for _ in 0..<rank {
        guard let dimension = Int(exactly: try integer(Int64.self)), dimension >= 0 else { throw malformed("a negative dimension") }
        shape.insert(dimension, at: 0)
        let (product, overflow) = elements.multipliedReportingOverflow(by: dimension)
        guard !overflow, product < Int.max / 64 else { throw malformed("the number of elements overflows") }
        elements = product
      }
      let id = try integer(UInt32.self)
      guard let type = BlockType(rawValue: id) else {
        guard let other = otherTypes[id] else {
          // ggml has added types in every year so far.
          guard id < 256 else { throw malformed("unknown type \(id)") }
          throw .notRead(path: path, reason: "tensor \"\(name)\" has the unknown type \(id) of ggml: removed, or newer than this program")
        }
        throw .unusableType(
          tensor: name, dtype: other, use: "weights; " + BlockType.allCases.map(\.name).joined(separator: ", ") + " are read")
      }
      guard (shape.last ?? 1) % type.blockLength == 0 else {
        throw malformed("rows of \(shape.last ?? 1) are no whole number of \(type.name) blocks of \(type.blockLength)")
      }
      guard let place = Int(exactly: try integer(UInt64.self)) else { throw malformed("its offset overflows") }
      return Entry(name: name, type: type, shape: shape, offset: place)
    }
  }
}

/// Types of ggml that occur in no file, by id.
private let otherTypes: [UInt32: String] = [9: "Q8_1", 15: "Q8_K"]
