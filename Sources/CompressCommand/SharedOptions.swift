import ArgumentParser
import CompressKit
import Foundation

struct MachineOptions: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("Threads to use.", valueName: "n"))
  var threads: Int?

  @Option(
    name: .long,
    help: ArgumentHelp(
      "Memory to stay under, such as 8GB (default: nine tenths of what is free); refused where it cannot be done with so little.",
      valueName: "size"))
  var memoryLimit: String?

  @Option(name: .long, help: "Progress on standard error: auto (a live bar on a terminal, lines elsewhere), plain, json or none.")
  var progress = ProgressStyle.auto

  func validate() throws {
    try require("--threads", threads, atMost: 4096)
  }

  func memory() throws -> Int {
    try memoryLimit.map { try ByteCount($0, option: "--memory-limit").value } ?? Machine.usualMemoryLimit
  }

  /// Runs the work with the given number of threads; Ctrl-C, SIGTERM and a closed terminal cancel it and let it clean up.
  func run<Result: Sendable>(_ work: @escaping @Sendable () async throws -> Result) async throws -> Result {
    let width = threads ?? Parallel.width
    try Machine.prepare(threads: width)
    let toolkit = CompressCommand.toolkit
    let task = Task {
      try await CompressCommand.$toolkit.withValue(toolkit) { try await Parallel.$width.withValue(width) { try await work() } }
    }
    let signals = EndingSignals { task.cancel() }
    defer { signals.ignore() }
    return try await task.value
  }
}

/// - Throws: for a number that an option cannot have; so many of anything that sums of them overflow are no request.
func require(_ option: String, _ value: Int?, atLeast least: Int = 1, atMost most: Int = Int(Int32.max)) throws(ValidationError) {
  guard let value, !(least...most).contains(value) else { return }
  throw ValidationError(value < least ? "\(option): at least \(least)" : "\(option): at most \(most)")
}

enum ProgressStyle: String, ExpressibleByArgument, CaseIterable { case auto, plain, json, none }

extension URL {
  /// A path as the shell understands it: relative to the working directory.
  init(userPath: String) { self.init(filePath: NSString(string: userPath).expandingTildeInPath) }
}
