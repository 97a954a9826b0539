package import Foundation
internal import StrictJSON
package import Tensors

/// Tensors, and a few words on them, in one file that is there whole or not at all.
///
/// What a run keeps of its own work lies in such files; they are safetensors, so that any tool can look into them.
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
    package func commit() throws(CheckpointError) {
      DurableFile.synchronize(temporary)
      guard rename(temporary.path, url.path) == 0 else { throw .cannotWrite(path: url.path, reason: SystemError.text) }
      DurableFile.synchronize(url.deletingLastPathComponent())
    }
  }

  package let words: [String: String]
  private let file: SafetensorsFile

  /// - Throws: `CheckpointError` for a file that is missing or damaged.
  package init(_ url: URL) throws(CheckpointError) {
    file = try SafetensorsFile(url)
    words = Dictionary(file.header.metadata.map { ($0.key, $0.value.string ?? "") }) { first, _ in first }
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
    let header = SafetensorsHeader(
      layingOut: items.map { ($0.name, $0.info) }, metadata: words.map { JSON.Member($0.key, .string($0.value)) })
    guard let text = header.serialized() else {
      throw CheckpointError.cannotWrite(path: url.path, reason: "there is too much to say of its tensors")
    }
    let byName = Dictionary(items.map { ($0.name, $0) }) { _, last in last }
    let temporary = url.appendingPathExtension("new")
    unlink(temporary.path)
    let descriptor = open(temporary.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw CheckpointError.cannotWrite(path: url.path, reason: SystemError.text) }
    let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    do {
      try handle.write(contentsOf: text)
      for entry in header.entries { if let item = byName[entry.name] { try handle.write(contentsOf: item.bytes()) } }
      try handle.close()
    } catch let error as CheckpointError { throw error } catch {
      throw CheckpointError.cannotWrite(path: url.path, reason: SystemError.reason(error))
    }
    return Pending(temporary: temporary, url: url)
  }
}

/// Small files that outlive a loss of power.
package enum DurableFile {
  /// Writes a file that has its name when all of it is on the disk, in the place of one that had it before.
  package static func write(_ data: Data, to url: URL) throws(CheckpointError) {
    let temporary = url.appendingPathExtension("new")
    do { try data.write(to: temporary) } catch { throw .cannotWrite(path: url.path, reason: SystemError.reason(error)) }
    synchronize(temporary)
    guard rename(temporary.path, url.path) == 0 else { throw .cannotWrite(path: url.path, reason: SystemError.text) }
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
