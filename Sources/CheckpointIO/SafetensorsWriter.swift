public import Foundation
internal import StrictJSON
internal import Tensors

/// Writes safetensors shards into `NAME.partial` and renames it to `NAME` when everything is on the disk.
///
/// The canonical order of a shard is known only when its last tensor is, so tensors are first appended to a spool file and then
/// copied into place: memory holds no tensor, at the price of writing one shard's bytes twice.
public actor SafetensorsWriter: CheckpointWriter {
  private let destination: URL
  private let partial: URL
  private let shardLimit: Int
  private let overwrite: Bool
  private var spool: FileHandle
  private var open: [(name: String, info: TensorInfo, offset: Int)] = []
  private var openBytes = 0
  private var shards: [[String]] = []
  private var totalBytes = 0

  /// - Parameters:
  ///   - destination: the final directory; refused if it exists, unless `overwrite`, which replaces it at the very end.
  ///   - shardLimit: bytes of tensors in a shard; a larger tensor gets a shard of its own.
  public init(to destination: URL, shardLimit: Int = 5_000_000_000, overwrite: Bool = false) throws(CheckpointError) {
    self.destination = destination.standardizedFileURL
    self.shardLimit = shardLimit
    self.overwrite = overwrite
    partial = URL(filePath: self.destination.path + ".partial")
    if !overwrite, FileManager.default.fileExists(atPath: self.destination.path) { throw .exists(path: self.destination.path) }
    do {
      if FileManager.default.fileExists(atPath: partial.path) { try FileManager.default.removeItem(at: partial) }
      try FileManager.default.createDirectory(at: partial, withIntermediateDirectories: true)
      spool = try Self.create(partial.appending(path: "spool"))
    } catch { throw Self.failure(partial.path, error) }
  }

  public func append(_ tensors: [NamedTensor]) throws(CheckpointError) {
    for named in tensors {
      let info = TensorInfo(dtype: named.tensor.dtype, shape: named.tensor.shape)
      if !open.isEmpty, openBytes + info.byteCount > shardLimit { try closeShard() }
      do { try spool.write(contentsOf: named.tensor.bytes) } catch { throw Self.failure(partial.path, error) }
      named.tensor.releasePages()
      open.append((named.name, info, openBytes))
      openBytes += info.byteCount
    }
  }

  private func closeShard() throws(CheckpointError) {
    let header = SafetensorsHeader(layingOut: open.map { ($0.name, $0.info) }, metadata: [.init("format", .string("pt"))])
    guard let text = header.serialized() else { throw .cannotWrite(path: partial.path, reason: "the shard's header is too large") }
    let url = partial.appending(path: "shard-\(shards.count)")
    do {
      let offsets = Dictionary(uniqueKeysWithValues: open.map { ($0.name, $0.offset) })
      let source = try FileHandle(forReadingFrom: partial.appending(path: "spool"))
      let shard = try Self.create(url)
      try shard.write(contentsOf: text)
      // Entries do not overlap, so they are copied several at a time.
      try Parallel.forEach(
        header.entries.count,
        throwing: { index in
          let entry = header.entries[index]
          try Self.copy(
            entry.range.count, from: source.fileDescriptor, at: offsets[entry.name]!, to: shard.fileDescriptor,
            at: text.count + entry.range.lowerBound)
        })
      try shard.synchronize()
      try shard.close()
      try source.close()
      try spool.close()
      spool = try Self.create(partial.appending(path: "spool"))
    } catch { throw Self.failure(url.path, error) }
    shards.append(open.map(\.name))
    totalBytes += openBytes
    open = []
    openBytes = 0
  }

  public func finish(files: [CheckpointFile]) throws(CheckpointError) {
    if !open.isEmpty || shards.isEmpty { try closeShard() }
    do {
      try spool.close()
      try FileManager.default.removeItem(at: partial.appending(path: "spool"))
      func name(_ shard: Int) -> String {
        func five(_ number: Int) -> String { String(repeating: "0", count: max(0, 5 - "\(number)".count)) + "\(number)" }
        return shards.count == 1 ? "model.safetensors" : "model-\(five(shard + 1))-of-\(five(shards.count)).safetensors"
      }
      for shard in shards.indices {
        try FileManager.default.moveItem(at: partial.appending(path: "shard-\(shard)"), to: partial.appending(path: name(shard)))
      }
      if shards.count > 1 {
        let map = shards.enumerated().flatMap { shard, names in names.map { JSON.Member($0, .string(name(shard))) } }
        let index = JSON.object([
          .init("metadata", .object([.init("total_size", .integer(totalBytes))])), .init("weight_map", .object(map)),
        ])
        try write(CheckpointFile("model.safetensors.index.json", .text(index.sorted().text(indent: 2) + "\n")))
      }
      for file in files { try write(file) }
      if overwrite, FileManager.default.fileExists(atPath: destination.path) {
        let old = URL(filePath: destination.path + ".replaced")
        // What a run that was killed at this very point left behind.
        if FileManager.default.fileExists(atPath: old.path) { try FileManager.default.removeItem(at: old) }
        try FileManager.default.moveItem(at: destination, to: old)
        try FileManager.default.moveItem(at: partial, to: destination)
        try FileManager.default.removeItem(at: old)
      } else {
        try FileManager.default.moveItem(at: partial, to: destination)
      }
    } catch { throw Self.failure(destination.path, error) }
  }

  public func abandon() {
    try? spool.close()
    try? FileManager.default.removeItem(at: partial)
  }

  private func write(_ file: CheckpointFile) throws {
    let url = partial.appending(path: file.name)
    switch file.content {
    case .text(let text):
      let handle = try Self.create(url)
      try handle.write(contentsOf: Data(text.utf8))
      try handle.synchronize()
      try handle.close()
    case .copy(let source): try FileManager.default.copyItem(at: source, to: url)
    }
  }

  /// Copies a stretch of one file into another through a buffer that stays in the cache.
  private static func copy(_ count: Int, from source: Int32, at offset: Int, to target: Int32, at destination: Int) throws {
    func failed(_ result: Int) -> CheckpointError {
      .cannotWrite(path: "the shard", reason: result == 0 ? "the spool file ended early" : String(cString: strerror(errno)))
    }
    try withUnsafeTemporaryAllocation(byteCount: min(max(count, 1), 1 << 20), alignment: 4096) { buffer in
      var done = 0
      while done < count {
        let got = pread(source, buffer.baseAddress, min(buffer.count, count - done), off_t(offset + done))
        guard got > 0 else { throw failed(got) }
        var put = 0
        while put < got {
          let written = pwrite(target, buffer.baseAddress! + put, got - put, off_t(destination + done + put))
          guard written > 0 else { throw failed(-1) }
          put += written
        }
        done += got
      }
    }
  }

  private static func create(_ url: URL) throws -> FileHandle {
    guard FileManager.default.createFile(atPath: url.path, contents: nil) else {
      throw CheckpointError.cannotWrite(path: url.path, reason: "the file cannot be created")
    }
    return try FileHandle(forWritingTo: url)
  }

  private static func failure(_ path: String, _ error: any Error) -> CheckpointError {
    (error as? CheckpointError) ?? .cannotWrite(path: path, reason: (error as NSError).systemReason)
  }
}

extension NSError {
  /// The operating system's words for the error beneath this one, where there are any.
  fileprivate var systemReason: String {
    if let cause = userInfo[NSUnderlyingErrorKey] as? NSError { return cause.systemReason }
    return domain == NSPOSIXErrorDomain ? String(cString: strerror(Int32(code))) : localizedDescription
  }
}
