internal import Dispatch
internal import Foundation
internal import Synchronization

/// The only place in the package where work is split between threads.
///
/// Splits are coarse (a section costs 40 to 100 µs to start) and never change a result: every output element is computed by one
/// iteration, in an order that does not depend on the number of threads. Inside an iteration everything runs on one thread.
public enum Parallel {
  /// How many threads a parallel section may use in the current task.
  @TaskLocal public static var width: Int = ProcessInfo.processInfo.activeProcessorCount

  /// Runs `body(0)` … `body(count - 1)`, several at a time.
  public static func forEach(_ count: Int, _ body: @Sendable (Int) -> Void) {
    let workers = min(width, count)
    guard workers > 1 else {
      for index in 0..<count { body(index) }
      return
    }
    let next = Atomic(0)
    DispatchQueue.concurrentPerform(iterations: workers) { _ in
      $width.withValue(1) {
        while true {
          let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
          guard index < count else { return }
          body(index)
        }
      }
    }
  }

  /// Like `forEach`; the error of the lowest failing index is thrown after all iterations have ended.
  public static func forEach<Failure: Error>(_ count: Int, throwing body: @Sendable (Int) throws(Failure) -> Void) throws(Failure) {
    let failure = Mutex<(index: Int, error: Failure)?>(nil)
    forEach(count) { index in
      do throws(Failure) { try body(index) } catch {
        failure.withLock { if $0 == nil || index < $0!.index { $0 = (index, error) } }
      }
    }
    if let failure = failure.withLock({ $0 }) { throw failure.error }
  }

  /// The results of `transform(0)` … `transform(count - 1)`, in that order.
  public static func map<Value: Sendable, Failure: Error>(
    _ count: Int, _ transform: @Sendable (Int) throws(Failure) -> Value
  ) throws(Failure) -> [Value] {
    let results = Mutex([Value?](repeating: nil, count: count))
    try forEach(
      count,
      throwing: { index throws(Failure) in
        let value = try transform(index)
        results.withLock { $0[index] = value }
      })
    return results.withLock { $0.map { $0! } }
  }
}

extension Matrix {
  /// Visits every row, many at a time.
  public mutating func updateRows(_ body: @Sendable (_ row: Int, _ elements: inout MutableSpan<Float>) -> Void) {
    let (rows, columns) = (rows, columns)
    // About 2¹⁶ elements an iteration: enough to be worth a thread's attention.
    let step = max(1, (1 << 16) / max(columns, 1))
    elements.withUnsafeMutableBufferPointer { buffer in
      // Rows do not overlap, so no two iterations touch the same element.
      nonisolated(unsafe) let base = buffer
      Parallel.forEach((rows + step - 1) / step) { strip in
        for row in strip * step..<min((strip + 1) * step, rows) {
          var span = MutableSpan(_unsafeElements: UnsafeMutableBufferPointer(rebasing: base[row * columns..<(row + 1) * columns]))
          body(row, &span)
        }
      }
    }
  }
}
