import Dispatch
import Foundation
import Synchronization

/// The signals that ask a run to end. The first lets it clean up; the second ends the process where it stands, and the next run with the same
/// output clears away what is left.
struct EndingSignals {
  private let sources: [any DispatchSourceSignal]

  init(_ end: @escaping @Sendable () -> Void) {
    let counter = Counter()
    sources = [SIGINT, SIGTERM, SIGHUP].compactMap { number in
      let before = signal(number, SIG_IGN)
      // Under nohup a run outlives its terminal.
      if number == SIGHUP, unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) { return nil }
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        guard counter.isFirst() else { _exit(128 + number) }
        end()
      }
      source.resume()
      return source
    }
  }

  func ignore() { for source in sources { source.cancel() } }

  private final class Counter: Sendable {
    private let count = Mutex(0)

    func isFirst() -> Bool {
      count.withLock { count in
        count += 1
        return count == 1
      }
    }
  }

  /// A file that grows beyond its limit is to be an error of writing, not the end of the process.
  static func ignoreFileSizeLimit() { signal(SIGXFSZ, SIG_IGN) }
}
