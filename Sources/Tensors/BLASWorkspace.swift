internal import COpenBLAS
import Foundation

extension BLAS {
  /// What OpenBLAS maps for itself at once, and once more for every thread that computes at the same time.
  private static let workspace = 128 << 20

  /// Takes the memory that OpenBLAS will want for so many threads. It cannot say that there is none: where a mapping fails it tries again for
  /// ever. So a process whose address space is limited asks first, and keeps what it was given.
  ///
  /// - Returns: whether there was room.
  package static func reserveWorkspace(threads: Int) -> Bool {
    let room = (threads + 1) * workspace
    guard let trial = mmap(nil, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), trial != MAP_FAILED
    else {
      return false
    }
    munmap(trial, room)
    // A product makes the library ready; what it has mapped for one thread it keeps for whoever comes next.
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 3) { numbers in
      numbers.initialize(repeating: 1)
      product(
        numbers.baseAddress!, stride: 1, numbers.baseAddress! + 1, stride: 1, rows: 1, columns: 1, inner: 1, into: numbers.baseAddress! + 2,
        stride: 1)
    }
    guard let allocate = dlsym(nil, "blas_memory_alloc"), let free = dlsym(nil, "blas_memory_free") else { return true }
    typealias Allocate = @convention(c) (Int32) -> UnsafeMutableRawPointer?
    typealias Free = @convention(c) (UnsafeMutableRawPointer?) -> Void
    let buffers = (0..<threads).map { _ in unsafeBitCast(allocate, to: Allocate.self)(0) }
    for buffer in buffers { unsafeBitCast(free, to: Free.self)(buffer) }
    return true
  }
}
