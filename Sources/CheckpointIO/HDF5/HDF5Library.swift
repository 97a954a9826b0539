internal import CHDF5
internal import Foundation
internal import Synchronization

/// The HDF Group's library, which has one state for the whole process: one caller at a time.
enum HDF5Library {
  /// Recursive, because objects are closed wherever the last reference goes, which may be inside.
  private static let lock = NSRecursiveLock()

  static func withLock<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
    lock.lock()
    defer { lock.unlock() }
    hdf5_harden()
    return try body()
  }
}

/// An open object of the library, closed when nothing holds it any longer.
final class HDF5Handle: Sendable {
  let id: hid_t
  private let closing: @Sendable (hid_t) -> Int32
  private let isOpen = Mutex(true)

  /// - Returns: `nil` for an identifier that says that something failed.
  init?(_ id: hid_t, _ close: @escaping @Sendable (hid_t) -> Int32) {
    guard id >= 0 else { return nil }
    self.id = id
    closing = close
  }

  deinit { _ = close() }

  /// Closes it now. What the library has held back is written only here, so that whoever has written something has to ask.
  ///
  /// - Returns: whether that worked; what is closed already stays closed.
  func close() -> Bool {
    isOpen.withLock { isOpen in
      guard isOpen else { return true }
      isOpen = false
      return HDF5Library.withLock { closing(id) >= 0 }
    }
  }
}
