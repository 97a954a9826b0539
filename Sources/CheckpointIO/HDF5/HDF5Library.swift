internal import CHDF5
internal import Foundation
internal import Synchronization

/// The HDF Group's library, which has one state for the whole process: one caller at a time.
enum HDF5Library {
  private static let lock = Mutex<Void>(())

  static func withLock<Value, Failure: Error>(_ body: () throws(Failure) -> sending Value) throws(Failure) -> sending Value {
    try lock.withLock { _ throws(Failure) in
      hdf5_harden()
      return try body()
    }
  }
}

/// An open object of the library, closed when nothing holds it any longer.
final class HDF5Handle: @unchecked Sendable {
  let id: hid_t
  private let close: (hid_t) -> Int32

  /// - Returns: `nil` for an identifier that says that something failed.
  init?(_ id: hid_t, _ close: @escaping @Sendable (hid_t) -> Int32) {
    guard id >= 0 else { return nil }
    self.id = id
    self.close = close
  }

  deinit { _ = close(id) }
}
