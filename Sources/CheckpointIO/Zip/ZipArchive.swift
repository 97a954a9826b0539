internal import Foundation
internal import Synchronization

/// A ZIP file, mapped: what PyTorch, NumPy and Keras wrap their files in. Stored entries are slices of the mapping.
///
/// Refused are encrypted entries, methods other than stored and deflated, names that occur twice, and entries that overlap.
struct ZipArchive: Sendable {
  let path: String
  /// In the order of the directory.
  let entries: [ZipEntry]
  private let file: Data
  private let positions: [[UInt8]: Int]
  private let checked = Checked()

  /// Entries whose sum has been compared.
  private final class Checked: Sendable { let positions = Mutex<Set<Int>>([]) }

  static let signature: [UInt8] = [0x50, 0x4B, 3, 4]

  /// - Throws: `CheckpointError` for everything that is wrong with the directory of the archive.
  init(_ url: URL) throws(CheckpointError) { try self.init(try MappedFile.open(url), path: url.path) }

  init(_ file: Data, path: String) throws(CheckpointError) {
    self.path = path
    self.file = file
    entries = try file.parse { bytes throws(CheckpointError) in try ZipDirectory(parsing: bytes, path: path).entries }
    positions = Dictionary(entries.enumerated().map { (Array($1.name.utf8), $0) }) { first, _ in first }
  }

  /// Of the whole file.
  var byteCount: Int { file.count }

  subscript(name: String) -> ZipEntry? { positions[Array(name.utf8)].map { entries[$0] } }

  /// The bytes of an entry; those that are stored stay mapped.
  ///
  /// - Throws: `CheckpointError` where they are damaged.
  func bytes(of entry: ZipEntry) throws(CheckpointError) -> Data {
    let raw = file.slice(at: entry.start, count: entry.storedSize)
    guard let position = positions[Array(entry.name.utf8)] else { throw .missingTensor(name: entry.name) }
    guard !entry.isStored || !checked.positions.withLock({ $0.contains(position) }) else { return raw }
    let bytes = entry.isStored ? raw : Inflate.bytes(of: raw, count: entry.size)
    guard let bytes else { throw damaged(entry, "its deflate stream is damaged, or not of \(entry.size) bytes") }
    guard bytes.crc32() == entry.checksum else { throw damaged(entry, "its checksum is wrong: the file is damaged") }
    checked.positions.withLock { _ = $0.insert(position) }
    return bytes
  }

  /// The first bytes of an entry, unchecked; fewer where it has fewer.
  func prefix(of entry: ZipEntry, _ count: Int) throws(CheckpointError) -> Data {
    let (raw, wanted) = (file.slice(at: entry.start, count: entry.storedSize), min(count, entry.size))
    guard !entry.isStored else { return raw.prefix(wanted) }
    guard let bytes = Inflate.bytes(of: raw, count: wanted, isPrefix: true) else { throw damaged(entry, "its deflate stream is damaged") }
    return bytes
  }

  private func damaged(_ entry: ZipEntry, _ reason: String) -> CheckpointError {
    .malformedTensor(path: path, tensor: entry.name, offset: entry.start, reason: reason)
  }
}

/// One file in an archive.
struct ZipEntry: Sendable, Equatable {
  var name: String
  /// Or deflated.
  var isStored: Bool
  /// Bytes in the archive.
  var storedSize: Int
  var size: Int
  var checksum: UInt32
  /// Of the local header, which lies before the bytes.
  var header: Int
  /// Of the bytes, counted from the start of the archive.
  var start: Int
}
