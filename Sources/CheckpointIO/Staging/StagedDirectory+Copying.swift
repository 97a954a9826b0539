internal import Foundation

extension StagedDirectory {
  /// Copies a stretch of one file into another through a buffer that stays in the cache. The disk starts on what is copied at once, so that
  /// little is left to wait for when the file is synchronized.
  static func copy(_ count: Int, from source: Int32, at offset: Int, to target: Int32, at destination: Int) throws {
    func failed(_ result: Int) -> CheckpointError {
      .cannotWrite(path: "the weights", reason: result == 0 ? "what is copied ended early" : SystemError.text)
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
}
