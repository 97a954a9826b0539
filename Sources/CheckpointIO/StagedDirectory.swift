internal import Foundation

/// A directory that is filled as `NAME.partial` and renamed to `NAME` when everything is on the disk.
struct StagedDirectory: Sendable {
  let destination: URL
  let partial: URL
  private let overwrite: Bool

  /// - Parameter destination: the final directory; refused if it exists, unless `overwrite`, which replaces it at the very end.
  init(for destination: URL, overwrite: Bool) throws(CheckpointError) {
    self.destination = destination.standardizedFileURL
    self.overwrite = overwrite
    partial = URL(filePath: self.destination.path + ".partial")
    if !overwrite, FileManager.default.fileExists(atPath: self.destination.path) { throw .exists(path: self.destination.path) }
    do {
      if FileManager.default.fileExists(atPath: partial.path) { try FileManager.default.removeItem(at: partial) }
      try FileManager.default.createDirectory(at: partial, withIntermediateDirectories: true)
    } catch { throw failure(partial.path, error) }
  }

  func url(_ name: String) -> URL { partial.appending(path: name) }

  func create(_ name: String) throws -> FileHandle {
    let url = url(name)
    guard FileManager.default.createFile(atPath: url.path, contents: nil) else {
      throw CheckpointError.cannotWrite(path: url.path, reason: "the file cannot be created")
    }
    return try FileHandle(forWritingTo: url)
  }

  func write(_ file: CheckpointFile) throws {
    switch file.content {
    case .text(let text):
      let handle = try create(file.name)
      try handle.write(contentsOf: Data(text.utf8))
      try handle.synchronize()
      try handle.close()
    case .copy(let source): try FileManager.default.copyItem(at: source, to: url(file.name))
    }
  }

  /// Gives the directory its final name.
  ///
  /// - Throws: `CheckpointError.cutShort` where something that was read had lost its end.
  func publish() throws {
    try MappedFile.checkIntact()
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
  }

  func abandon() { try? FileManager.default.removeItem(at: partial) }

  /// Copies a stretch of one file into another through a buffer that stays in the cache. The disk starts on what is copied at once, so that
  /// little is left to wait for when the file is synchronized.
  static func copy(_ count: Int, from source: Int32, at offset: Int, to target: Int32, at destination: Int) throws {
    func failed(_ result: Int) -> CheckpointError {
      .cannotWrite(path: "the weights", reason: result == 0 ? "the spool file ended early" : String(cString: strerror(errno)))
    }
    try withUnsafeTemporaryAllocation(byteCount: min(max(count, 1), 1 << 21), alignment: 4096) { buffer in
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
        #if os(Linux)
          // Starts writing what is in the cache; only advice, and what it does not start, synchronizing does.
          posix_fadvise(target, off_t(destination + done), off_t(got), POSIX_FADV_DONTNEED)
        #endif
        done += got
      }
    }
  }

  /// The error as one of ours, in the operating system's words where it has any.
  func failure(_ path: String, _ error: any Error) -> CheckpointError {
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
