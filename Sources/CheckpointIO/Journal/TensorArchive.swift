internal import CZlib
package import Foundation
internal import StrictJSON
package import Tensors

/// Tensors, and a few words on them, in one file that is there whole or not at all.
///
/// What a run keeps of its own work lies in such files; they are safetensors, so that any tool can look into them. A checksum over all of a
/// file stands among its words: nobody would notice a code that the disk has changed.
package struct TensorArchive: Sendable {
  /// A tensor that is made when its turn to be written has come.
  package struct Item {
    let name: String
    let info: TensorInfo
    let bytes: () throws -> Data

    package init(_ name: String, _ info: TensorInfo, bytes: @escaping () throws -> Data) {
      self.name = name
      self.info = info
      self.bytes = bytes
    }

    package init(_ name: String, _ tensor: Tensor) {
      self.init(name, TensorInfo(dtype: tensor.dtype, shape: tensor.shape)) { tensor.bytes }
    }

    /// Numbers as they are, [rows × columns].
    package init(_ name: String, _ matrix: Matrix) {
      self.init(name, TensorInfo(dtype: .float32, shape: [matrix.rows, matrix.columns])) {
        matrix.elements.withUnsafeBytes { Data($0) }
      }
    }
  }

  /// A file that has been written and neither synchronized nor named.
  package struct Pending: Sendable {
    fileprivate let temporary: URL
    fileprivate let url: URL

    /// Puts the file on the disk and gives it its name: from then on it outlives a loss of power.
    package func commit() throws(CheckpointError) { try DurableFile.name(temporary, url) }
  }

  package let words: [String: String]
  private let file: SafetensorsFile

  /// - Throws: `DamagedJournal` for a file that is missing or is not as it was written.
  package init(_ url: URL) throws(DamagedJournal) {
    do throws(CheckpointError) { file = try SafetensorsFile(url) } catch { throw DamagedJournal(file: url.path, reason: "\(error)") }
    var words = Dictionary(file.header.metadata.map { ($0.key, $0.value.string ?? "") }) { first, _ in first }
    let written = words.removeValue(forKey: Self.checksum)
    self.words = words
    guard let written, let found = Self.checksum(of: url, written: written), found == written else {
      throw DamagedJournal(file: url.path, reason: "its checksum is another one than when it was written")
    }
  }

  // MARK: The checksum

  private static let checksum = "crc32"
  /// What stands in the checksum's place when the checksum is taken.
  private static let unknownChecksum = "--------"

  private static func text(_ checksum: UInt) -> String {
    let digits = String(checksum, radix: 16)
    return String(repeating: "0", count: max(0, unknownChecksum.count - digits.count)) + digits
  }

  private static func adding(_ bytes: Data, to checksum: UInt) -> UInt {
    bytes.withUnsafeBytes { crc32_z(checksum, $0.bindMemory(to: UInt8.self).baseAddress, $0.count) }
  }

  /// Where in the beginning of a file the checksum's digits stand.
  private static func place(of value: String, in header: Data) -> Range<Data.Index>? {
    let opening = Data("\"\(checksum)\":\"".utf8)
    guard let place = header.range(of: opening + Data("\(value)\"".utf8)) else { return nil }
    return place.lowerBound + opening.count..<place.upperBound - 1
  }

  private static func checksum(of url: URL, written: String) -> String? {
    guard let handle = try? FileHandle(forReadingFrom: url), let length = try? handle.read(upToCount: 8), length.count == 8 else {
      return nil
    }
    let count = length.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    guard count < 1 << 31, var header = try? handle.read(upToCount: Int(count)), let place = place(of: written, in: header) else {
      return nil
    }
    header.replaceSubrange(place, with: Data(unknownChecksum.utf8))
    var sum = adding(header, to: adding(length, to: 0))
    while let piece = try? handle.read(upToCount: 1 << 20), !piece.isEmpty { sum = adding(piece, to: sum) }
    return text(sum)
  }

  package var names: [String] { file.names }
  package func tensor(_ name: String) throws(CheckpointError) -> Tensor { try file.tensor(name) }
  package func info(_ name: String) -> TensorInfo? { file.info(name) }

  /// - Throws: `CheckpointError` for a tensor that is missing or no matrix of single-precision numbers.
  package func matrix(_ name: String) throws(CheckpointError) -> Matrix {
    let tensor = try tensor(name)
    guard tensor.dtype == .float32, tensor.shape.count == 2 else {
      throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "a matrix of floats")
    }
    return Matrix(rows: tensor.shape[0], columns: tensor.shape[1], elements: tensor.floats())
  }

  /// Writes a file beside the place where it is to be; `commit` gives it its name.
  package static func write(_ items: [Item], words: [String: String], to url: URL) throws -> Pending {
    let words = words.merging([checksum: unknownChecksum]) { $1 }
    let header = SafetensorsHeader(
      layingOut: items.map { ($0.name, $0.info) }, metadata: words.map { JSON.Member($0.key, .string($0.value)) })
    guard let text = header.serialized().map({ Data($0) }), let place = place(of: unknownChecksum, in: text) else {
      throw CheckpointError.cannotWrite(path: url.path, reason: "there is too much to say of its tensors")
    }
    let byName = Dictionary(items.map { ($0.name, $0) }) { _, last in last }
    let temporary = url.appendingPathExtension("new")
    unlink(temporary.path)
    let descriptor = open(temporary.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw CheckpointError.cannotWrite(path: url.path, reason: SystemError.text) }
    let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    do {
      var sum = adding(text, to: 0)
      try handle.write(contentsOf: text)
      for entry in header.entries {
        guard let bytes = try byName[entry.name]?.bytes() else { continue }
        sum = adding(bytes, to: sum)
        try handle.write(contentsOf: bytes)
      }
      try handle.seek(toOffset: UInt64(place.lowerBound - text.startIndex))
      try handle.write(contentsOf: Data(Self.text(sum).utf8))
      try handle.close()
    } catch {
      unlink(temporary.path)
      throw error is CheckpointError ? error : CheckpointError.cannotWrite(path: url.path, reason: SystemError.reason(error))
    }
    return Pending(temporary: temporary, url: url)
  }
}

/// Small files that outlive a loss of power.
package enum DurableFile {
  /// Writes a file that has its name when all of it is on the disk, in the place of one that had it before.
  package static func write(_ data: Data, to url: URL) throws(CheckpointError) {
    let temporary = url.appendingPathExtension("new")
    do { try data.write(to: temporary) } catch {
      unlink(temporary.path)
      throw .cannotWrite(path: url.path, reason: SystemError.reason(error))
    }
    try name(temporary, url)
  }

  /// Gives a file its name once all of it is on the disk.
  fileprivate static func name(_ temporary: URL, _ url: URL) throws(CheckpointError) {
    synchronize(temporary)
    guard rename(temporary.path, url.path) == 0 else {
      let reason = SystemError.text
      unlink(temporary.path)
      throw .cannotWrite(path: url.path, reason: reason)
    }
    synchronize(url.deletingLastPathComponent())
  }

  /// Puts a file, or a directory's list of names, on the disk.
  package static func synchronize(_ item: URL) {
    let descriptor = open(item.path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    fsync(descriptor)
    close(descriptor)
  }
}
