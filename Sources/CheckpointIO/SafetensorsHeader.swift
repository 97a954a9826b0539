package import StrictJSON
internal import Tensors

/// The header of a safetensors file: names, types, shapes, and where the bytes are.
package struct SafetensorsHeader: Sendable, Equatable {
  package struct Entry: Sendable, Equatable {
    package var name: String
    package var info: TensorInfo
    /// Offsets into the data that follows the header.
    package var range: Range<Int>
  }

  package var metadata: [JSON.Member] = []
  /// In the order of the data.
  package var entries: [Entry]

  /// The format's own limit on the header.
  package static let sizeLimit = 100_000_000
  package var dataLength: Int { entries.last?.range.upperBound ?? 0 }
}

// MARK: - Reading

extension SafetensorsHeader {
  /// Parses and checks the header of a file: everything the official reader rejects, and repeated names besides.
  ///
  /// - Parameter file: the whole file, mapped.
  package init(parsing file: UnsafeRawBufferPointer, path: String) throws(CheckpointError) {
    guard file.count >= 8 else {
      throw .malformedHeader(path: path, offset: 0, reason: "the file has \(file.count) bytes; its length field alone takes 8")
    }
    let length = UInt64(littleEndian: file.loadUnaligned(as: UInt64.self))
    guard length <= UInt64(Self.sizeLimit) else {
      throw .malformedHeader(path: path, offset: 0, reason: "a header of \(length) bytes is over the limit of \(Self.sizeLimit)")
    }
    let start = 8 + Int(length)
    guard start <= file.count else { throw .wrongLength(path: path, needed: start, found: file.count) }
    let root: JSON
    do {
      root = try JSON(parsing: UnsafeRawBufferPointer(rebasing: file[8..<start]))
    } catch { throw .malformedHeader(path: path, offset: 8 + error.offset, reason: error.reason) }
    guard let members = root.members else { throw .malformedHeader(path: path, offset: 8, reason: "an object is needed") }
    self.init(entries: [])
    for member in members {
      if member.key == "__metadata__" {
        metadata = try Self.metadata(member.value, path: path)
      } else {
        entries.append(try Self.entry(member, path: path))
      }
    }
    entries.sort { ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound) }
    var end = 0
    for entry in entries {
      guard entry.range.lowerBound == end else {
        let what = entry.range.lowerBound > end ? "leaves a hole before it" : "overlaps the tensor before it"
        throw .malformedTensor(
          path: path, tensor: entry.name, offset: 8, reason: "data_offsets \(entry.range.lowerBound)…\(entry.range.upperBound) \(what)")
      }
      end = entry.range.upperBound
    }
    let (total, overflow) = start.addingReportingOverflow(end)
    guard !overflow, total == file.count else { throw .wrongLength(path: path, needed: overflow ? .max : total, found: file.count) }
  }

  private static func metadata(_ value: JSON, path: String) throws(CheckpointError) -> [JSON.Member] {
    if value.isNull { return [] }
    guard let members = value.members, members.allSatisfy({ $0.value.string != nil }) else {
      throw .malformedHeader(path: path, offset: 8, reason: "__metadata__ must map strings to strings")
    }
    return members
  }

  private static func entry(_ member: JSON.Member, path: String) throws(CheckpointError) -> Entry {
    func malformed(_ reason: String) -> CheckpointError {
      .malformedTensor(path: path, tensor: member.key, offset: 8, reason: reason)
    }
    guard member.value.members != nil else { throw malformed("an object with dtype, shape and data_offsets is needed") }
    guard let spelling = member.value["dtype"]?.string else { throw malformed("dtype is missing or not a string") }
    guard let dtype = DType(rawValue: spelling) else { throw malformed("unknown dtype \"\(spelling)\"") }
    guard let shape = member.value["shape"]?.elements else { throw malformed("shape is missing or not a list") }
    var dimensions: [Int] = []
    for dimension in shape {
      guard let value = dimension.integer, value >= 0 else { throw malformed("shape has an element that is not a whole number") }
      dimensions.append(value)
    }
    guard let offsets = member.value["data_offsets"]?.elements, offsets.count == 2, let begin = offsets[0].integer,
      let end = offsets[1].integer, begin >= 0
    else { throw malformed("data_offsets must be two whole numbers") }
    guard begin <= end else { throw malformed("data_offsets end before they begin") }
    // Left to right with checks, as the official reader does: [0, 2⁴⁰, 2⁴⁰] passes, [2⁴⁰, 2⁴⁰, 0] does not.
    var bits = 1
    for factor in dimensions + [dtype.bitCount] {
      let (product, overflow) = bits.multipliedReportingOverflow(by: factor)
      guard !overflow else { throw malformed("the size of shape \(dimensions) overflows") }
      bits = product
    }
    guard bits % 8 == 0 else { throw malformed("\(bits) bits are not a whole number of bytes") }
    guard end - begin == bits / 8 else {
      throw malformed("shape \(dimensions) of \(spelling) takes \(bits / 8) bytes, data_offsets give \(end - begin)")
    }
    return Entry(name: member.key, info: TensorInfo(dtype: dtype, shape: dimensions), range: begin..<end)
  }
}

// MARK: - Writing

extension SafetensorsHeader {
  /// Lays tensors out as the reference writer does: widest types first, then by name, without gaps.
  package init(layingOut tensors: [(name: String, info: TensorInfo)], metadata: [JSON.Member]) {
    let ordered = tensors.sorted { a, b in
      if a.info.dtype.rank != b.info.dtype.rank { return a.info.dtype.rank > b.info.dtype.rank }
      return a.name.utf8.lexicographicallyPrecedes(b.name.utf8)
    }
    self.init(metadata: metadata.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }, entries: [])
    for (name, info) in ordered {
      let begin = dataLength
      entries.append(Entry(name: name, info: info, range: begin..<begin + info.byteCount))
    }
  }

  /// The length field and the header, padded with spaces to a multiple of 8; `nil` if it is over the format's limit.
  package func serialized() -> [UInt8]? {
    var members: [JSON.Member] = []
    if !metadata.isEmpty { members.append(.init("__metadata__", .object(metadata))) }
    for entry in entries {
      let value = JSON.object([
        .init("dtype", .string(entry.info.dtype.rawValue)), .init("shape", .array(entry.info.shape.map { .integer($0) })),
        .init("data_offsets", .array([.integer(entry.range.lowerBound), .integer(entry.range.upperBound)])),
      ])
      members.append(.init(entry.name, value))
    }
    var header = Array(JSON.object(members).text().utf8)
    header += [UInt8](repeating: 0x20, count: (8 - header.count % 8) % 8)
    guard header.count <= Self.sizeLimit else { return nil }
    return withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header
  }
}
