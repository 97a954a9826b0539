internal import Foundation

/// The central directory of a ZIP file (APPNOTE 6.3, ZIP64 included), and the local headers it points to.
struct ZipDirectory {
  private(set) var entries: [ZipEntry] = []
  private let file: UnsafeRawBufferPointer
  private let path: String

  /// Of all that is deflated together: single arrays of zeros deflate to a thousandth. As Keras has it.
  private static let largestRatio = 100
  private static let harmless = 1 << 26
  private static let endSignature: [UInt8] = [0x50, 0x4B, 5, 6]
  private static let end64Signature: [UInt8] = [0x50, 0x4B, 6, 6]
  private static let locatorSignature: [UInt8] = [0x50, 0x4B, 6, 7]
  private static let entrySignature: [UInt8] = [0x50, 0x4B, 1, 2]

  /// - Parameter file: the whole archive.
  init(parsing file: UnsafeRawBufferPointer, path: String) throws(CheckpointError) {
    (self.file, self.path) = (file, path)
    guard let end = Self.end(of: file) else { throw malformed(max(0, file.count - 22), "no ZIP directory at the end (truncated?)") }
    var count = Int(file.little(UInt16.self, at: end + 10) ?? 0)
    var start = Int(file.little(UInt32.self, at: end + 16) ?? 0)
    if count == 0xFFFF || start == 0xFFFF_FFFF, file.holds(Self.locatorSignature, at: end - 20) {
      guard let place = file.little(UInt64.self, at: end - 12).flatMap(Int.init(exactly:)), file.holds(Self.end64Signature, at: place),
        let many = file.little(UInt64.self, at: place + 32).flatMap(Int.init(exactly:)),
        let first = file.little(UInt64.self, at: place + 48).flatMap(Int.init(exactly:))
      else { throw malformed(end - 20, "the ZIP64 directory is not where it should be") }
      (count, start) = (many, first)
    }
    guard start <= end, count <= (end - start) / 46 else { throw malformed(end, "\(count) entries do not fit before the end") }
    var offset = start
    var names: Set<[UInt8]> = []
    for _ in 0..<count {
      let (entry, next) = try self.entry(at: offset)
      guard names.insert(Array(entry.name.utf8)).inserted else { throw malformed(offset, "\"\(entry.name)\" occurs twice") }
      entries.append(entry)
      offset = next
    }
    let deflated = entries.filter { !$0.isStored }
    let (size, stored) = (deflated.reduce(0) { $0 &+ $1.size }, deflated.reduce(0) { $0 &+ $1.storedSize })
    guard size < Self.harmless || size / Self.largestRatio <= stored else {
      throw malformed(end, "\(stored) bytes that inflate to \(size): a file made to fill the memory, not one of weights")
    }
    let ordered = entries.sorted { $0.header < $1.header }
    for (entry, next) in zip(ordered, ordered.dropFirst()) where entry.start + entry.storedSize > next.header {
      throw malformed(next.header, "\"\(next.name)\" overlaps \"\(entry.name)\"")
    }
  }

  /// The end record: the last one whose comment reaches to the end of the file.
  private static func end(of file: UnsafeRawBufferPointer) -> Int? {
    guard file.count >= 22 else { return nil }
    return (max(0, file.count - 22 - 0xFFFF)...file.count - 22).last { offset in
      file.holds(endSignature, at: offset) && file.little(UInt16.self, at: offset + 20).map { offset + 22 + Int($0) == file.count } == true
    }
  }

  private func malformed(_ offset: Int, _ reason: String) -> CheckpointError {
    .malformedHeader(path: path, offset: offset, reason: reason)
  }

  private func entry(at offset: Int) throws(CheckpointError) -> (ZipEntry, next: Int) {
    func short(_ place: Int) throws(CheckpointError) -> Int {
      guard let value = file.little(UInt16.self, at: offset + place) else { throw malformed(offset, "the directory is cut off") }
      return Int(value)
    }
    func long(_ place: Int) throws(CheckpointError) -> Int {
      guard let value = file.little(UInt32.self, at: offset + place) else { throw malformed(offset, "the directory is cut off") }
      return Int(value)
    }
    guard file.holds(Self.entrySignature, at: offset) else { throw malformed(offset, "no directory entry") }
    let (flags, method) = (try short(8), try short(10))
    let (nameSize, extraSize, commentSize) = (try short(28), try short(30), try short(32))
    let next = offset + 46 + nameSize + extraSize + commentSize
    guard next <= file.count else { throw malformed(offset, "the directory is cut off") }
    let nameBytes = UnsafeRawBufferPointer(rebasing: file[offset + 46..<offset + 46 + nameSize])
    guard let name = String(validating: nameBytes, as: UTF8.self), !name.isEmpty else {
      throw malformed(offset, "a name that is not UTF-8")
    }
    func refused(_ reason: String) -> CheckpointError { malformed(offset, "\"\(name)\" \(reason)") }
    guard flags & 0x2041 == 0 else { throw .notRead(path: path, reason: "\"\(name)\" is encrypted") }
    guard method == 0 || method == 8 else {
      throw .notRead(path: path, reason: "\"\(name)\" is packed by method \(method); stored and deflated entries are read")
    }
    var (size, storedSize, header) = (try long(24), try long(20), try long(42))
    try widen(&size, &storedSize, &header, extra: offset + 46 + nameSize..<offset + 46 + nameSize + extraSize)
    guard file.holds(ZipArchive.signature, at: header), let localName = file.little(UInt16.self, at: header + 26),
      let localExtra = file.little(UInt16.self, at: header + 28), file.holds(Array(nameBytes), at: header + 30),
      Int(localName) == nameSize
    else { throw refused("has no header of its own at byte \(header)") }
    let start = header + 30 + nameSize + Int(localExtra)
    guard start <= file.count, storedSize <= file.count - start else { throw refused("reaches beyond the file (truncated?)") }
    guard method == 8 || size == storedSize else { throw refused("is stored, but its two sizes differ") }
    guard method == 0 || size / Inflate.largestRatio <= storedSize else {
      throw refused("claims \(size) bytes, more than \(storedSize) deflated ones can stand for")
    }
    let entry = ZipEntry(
      name: name, isStored: method == 0, storedSize: storedSize, size: size, checksum: UInt32(try long(16)), header: header, start: start)
    return (entry, next)
  }

  /// Sizes and offsets that do not fit 32 bits lie in an extra field, in this order.
  private func widen(_ size: inout Int, _ storedSize: inout Int, _ header: inout Int, extra: Range<Int>) throws(CheckpointError) {
    var offset = extra.lowerBound
    while offset + 4 <= extra.upperBound {
      let id = file.little(UInt16.self, at: offset) ?? 0
      let end = offset + 4 + Int(file.little(UInt16.self, at: offset + 2) ?? 0)
      guard end <= extra.upperBound else { return }
      offset += 4
      if id == 1 {
        func next(_ value: Int) throws(CheckpointError) -> Int {
          guard value == 0xFFFF_FFFF else { return value }
          guard offset + 8 <= end, let wide = file.little(UInt64.self, at: offset), let wide = Int(exactly: wide) else {
            throw malformed(offset, "a ZIP64 field is cut off")
          }
          offset += 8
          return wide
        }
        size = try next(size)
        storedSize = try next(storedSize)
        header = try next(header)
        return
      }
      offset = end
    }
  }
}
