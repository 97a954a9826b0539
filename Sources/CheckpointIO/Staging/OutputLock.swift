package import Foundation
internal import StrictJSON
internal import Synchronization

/// The sole right to make one output: a file `.NAME.compress-lock` beside it, held with `flock` for as long as a run lives.
///
/// The system lets go when the process ends, however it ends. A file that a killed run left behind binds nobody: the next run takes it over.
package final class OutputLock: Sendable {
  private let path: String
  private let descriptor: Int32
  private let isHeld = Mutex(true)
  /// Whether others are kept out; not where the file system has no locks.
  let excludesOthers: Bool

  private static let program = JSON.Member("program", .string("compress"))

  /// - Throws: `CheckpointError.busy` naming the process that holds the lock; `cannotWrite` where no lock can be made.
  init(_ place: OutputPlace) throws(CheckpointError) {
    let path = place.sibling("compress-lock").path
    self.path = path
    // Who only asks for the holder holds the lock for a moment, too.
    var patience = 5
    while true {
      let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
      guard descriptor >= 0 else { throw .cannotWrite(path: place.given.path, reason: SystemError.text) }
      let locked = flock(descriptor, LOCK_EX | LOCK_NB) == 0
      let code = errno
      if !locked, code == EWOULDBLOCK || code == EINTR {
        let holder = Self.holder(descriptor)
        close(descriptor)
        if code == EINTR { continue }
        guard patience == 0 else {
          patience -= 1
          usleep(10_000)
          continue
        }
        throw .busy(path: place.url.path, holder: holder)
      }
      // Who held it may have taken the name away between our opening and our locking.
      guard !locked || Self.isNamed(path, descriptor) else {
        close(descriptor)
        continue
      }
      do throws(CheckpointError) { try Self.sign(descriptor, path, place) } catch {
        close(descriptor)
        throw error
      }
      self.descriptor = descriptor
      excludesOthers = locked
      return
    }
  }

  /// The lock of whatever is to be made at a place.
  package convenience init(of output: URL) throws(CheckpointError) { try self.init(try OutputPlace(output)) }

  /// Who holds the lock of an output; `nil` where nobody does.
  static func holder(of place: OutputPlace) -> String? {
    let descriptor = open(place.sibling("compress-lock").path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    guard flock(descriptor, LOCK_SH | LOCK_NB) != 0, errno == EWOULDBLOCK else { return nil }
    return holder(descriptor)
  }

  deinit { release() }

  /// Takes the file away and lets others in; more than once does nothing more.
  package func release() {
    isHeld.withLock { isHeld in
      guard isHeld else { return }
      isHeld = false
      // While it is locked, so that nobody locks a file that is about to lose its name.
      unlink(path)
      close(descriptor)
    }
  }

  private static func isNamed(_ path: String, _ descriptor: Int32) -> Bool {
    var (named, held) = (stat(), stat())
    return lstat(path, &named) == 0 && fstat(descriptor, &held) == 0 && named.st_ino == held.st_ino && named.st_dev == held.st_dev
  }

  private static func text(_ descriptor: Int32) -> JSON? {
    var bytes = [UInt8](repeating: 0, count: 1 << 14)
    let count = pread(descriptor, &bytes, bytes.count, 0)
    return count > 0 ? try? JSON(parsing: bytes[..<count]) : nil
  }

  /// Writes down who holds the lock, for those who are refused.
  private static func sign(_ descriptor: Int32, _ path: String, _ place: OutputPlace) throws(CheckpointError) {
    var file = stat()
    guard fstat(descriptor, &file) == 0, file.st_size == 0 || text(descriptor)?[program.key] == program.value else {
      throw .cannotWrite(path: path, reason: "a file of this name is in the way that is no lock of this program; move it")
    }
    let holder = JSON.object([
      program, .init("process", .integer(Int(getpid()))), .init("host", .string(ProcessPlace.host)),
      .init("output", .string(place.url.path)),
    ])
    let bytes = Array((holder.text() + "\n").utf8)
    guard ftruncate(descriptor, 0) == 0, pwrite(descriptor, bytes, bytes.count, 0) == bytes.count else {
      let reason = SystemError.text
      unlink(path)
      throw .cannotWrite(path: place.given.path, reason: reason)
    }
  }

  private static func holder(_ descriptor: Int32) -> String {
    // It may have locked the file a moment ago and not have signed it yet.
    for _ in 0..<20 {
      if let signed = text(descriptor), let process = signed["process"]?.integer {
        let host = signed["host"]?.string ?? ""
        return "process \(process)" + (host.isEmpty || host == ProcessPlace.host ? "" : " on \(host)")
      }
      usleep(10_000)
    }
    return "another process"
  }
}

/// Where this process runs.
enum ProcessPlace {
  static let host: String = {
    var name = [CChar](repeating: 0, count: 256)
    guard gethostname(&name, name.count - 1) == 0 else { return "" }
    return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }()
}

/// What the operating system says of its last refusal, and of the one beneath an error of Foundation.
package enum SystemError {
  static var text: String { String(cString: strerror(errno)) }

  /// In the system's own words where it has any: Foundation's name domains and numbers.
  package static func reason(_ error: any Error) -> String {
    let error = error as NSError
    if let cause = error.userInfo[NSUnderlyingErrorKey] as? NSError { return reason(cause) }
    if error.domain == NSPOSIXErrorDomain { return String(cString: strerror(Int32(error.code))) }
    if error.domain == NSCocoaErrorDomain {
      switch CocoaError.Code(rawValue: error.code) {
      case .fileNoSuchFile, .fileReadNoSuchFile: return String(cString: strerror(ENOENT))
      case .fileReadNoPermission, .fileWriteNoPermission: return String(cString: strerror(EACCES))
      case .fileWriteOutOfSpace: return String(cString: strerror(ENOSPC))
      case .fileWriteFileExists: return String(cString: strerror(EEXIST))
      case .fileReadUnknown: return "it cannot be read"
      case .fileWriteUnknown: return "it cannot be written"
      default: break
      }
    }
    return error.localizedDescription
  }
}
