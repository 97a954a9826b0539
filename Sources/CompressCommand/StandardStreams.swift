import Foundation

/// Where a command speaks: results go to standard output, everything else to standard error.
enum StandardStreams {
  /// Keeps descriptors 0 to 2 from being given to files: a process that is started without one of them would otherwise open a checkpoint as
  /// its standard output, and print into it. What is printed nowhere is an error that is reported, not a signal that ends the run.
  static func prepare() {
    signal(SIGPIPE, SIG_IGN)
    for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
      // The lowest free descriptor is the one asked for. It cannot be written to, so what is printed is known to be lost.
      _ = open("/dev/null", O_RDONLY)
    }
  }

  /// Says something on standard error. Nothing that cannot be said there is worth ending a run for.
  static func say(_ text: String) { _ = write(Data(text.utf8), to: STDERR_FILENO) }

  /// Prints results.
  ///
  /// - Throws: `ResultNotPrinted`, unless whoever read them has gone away, as `head` does.
  static func print(_ data: Data) throws(ResultNotPrinted) {
    let code = write(data, to: STDOUT_FILENO)
    guard code == 0 || code == EPIPE else { throw ResultNotPrinted(reason: String(cString: strerror(code))) }
  }

  /// - Returns: 0, or the system's error number.
  private static func write(_ data: Data, to descriptor: Int32) -> Int32 {
    data.withUnsafeBytes { bytes in
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = Foundation.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
        guard count > 0 || errno == EINTR else { return errno }
        if count > 0 { rest = rest.dropFirst(count) }
      }
      return 0
    }
  }
}

/// Results that standard output did not take; whatever the command was to write elsewhere is there.
struct ResultNotPrinted: Error, Equatable, CustomStringConvertible {
  let reason: String
  var description: String { "the results could not be printed to standard output: \(reason); what goes to files has been written" }
}

/// - Throws: `ResultNotPrinted`.
func printResult(_ text: String) throws(ResultNotPrinted) { try StandardStreams.print(Data((text + "\n").utf8)) }
