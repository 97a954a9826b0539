import Foundation

/// One line that tells how far a run is, and that fits the terminal: a line that wraps cannot be taken back.
struct ProgressLine {
  var step: String
  var done: Int
  var count: Int
  var elapsed: Duration
  /// What is at work just now; the first to be cut off.
  var pass: String

  /// - Parameter columns: of the terminal; the last one stays free, where some terminals begin a new line.
  func text(columns: Int) -> String {
    let left = elapsed * (Double(count - done) / Double(max(1, done)))
    let cells = min(24, max(4, columns / 4))
    let filled = done * cells / max(1, count)
    let line =
      "\(step) [\(String(repeating: "█", count: filled))\(String(repeating: "░", count: cells - filled))] \(done)/\(count)  "
      + "\(elapsed.secondsText) elapsed, \(left.secondsText) left  \(pass)"
    return String(line.prefix(max(0, columns - 1)))
  }

  /// Columns of the terminal that standard error is; 80 where it does not say.
  static var terminalColumns: Int {
    var size = winsize()
    guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return Int(size.ws_col)
  }
}
