public import Foundation

/// What a file was when it was opened: enough to notice that another has taken its name, or that it was written to.
public struct FileStamp: Sendable, Equatable {
  public let path: String
  private let device: UInt64
  private let node: UInt64
  /// In bytes.
  public let size: Int
  private let written: timespecPair

  private struct timespecPair: Sendable, Equatable {
    var seconds: Int
    var nanoseconds: Int
  }

  /// Of the file a name leads to, through links; `nil` where there is none.
  public init?(of url: URL) {
    var entry = stat()
    guard stat(url.path, &entry) == 0 else { return nil }
    path = url.path
    (device, node, size) = (UInt64(entry.st_dev), UInt64(entry.st_ino), Int(entry.st_size))
    #if canImport(Darwin)
      written = .init(seconds: entry.st_mtimespec.tv_sec, nanoseconds: entry.st_mtimespec.tv_nsec)
    #else
      written = .init(seconds: entry.st_mtim.tv_sec, nanoseconds: entry.st_mtim.tv_nsec)
    #endif
  }

  /// - Throws: `CheckpointError.cutShort` for a file that has lost its end, `changed` where the name leads to another file now, or to the same with other contents, as far as its size and
  ///   time tell.
  public func check() throws(CheckpointError) {
    guard let now = FileStamp(of: URL(filePath: path)) else { throw .changed(path: path, reason: "has vanished") }
    guard now.device == device, now.node == node else { throw .changed(path: path, reason: "has been replaced by another file") }
    guard now.size >= size else { throw .cutShort(path: path) }
    guard now.size == size else { throw .changed(path: path, reason: "has become \(now.size) bytes long, from \(size),") }
    guard now.written == written else { throw .changed(path: path, reason: "has been written to") }
  }
}
