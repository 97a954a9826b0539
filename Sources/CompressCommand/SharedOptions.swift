import ArgumentParser
import CompressKit
import Foundation

struct MachineOptions: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("Threads to use.", valueName: "n"))
  var threads: Int?

  @Option(
    name: .long,
    help: ArgumentHelp("Memory to stay under where there is a choice, such as 8GB (default: half of what there is).", valueName: "size"))
  var memoryLimit: String?

  @Option(name: .long, help: "Progress on standard error: auto (a live bar on a terminal, lines elsewhere), plain, json or none.")
  var progress = ProgressStyle.auto

  func validate() throws {
    if let threads, threads < 1 { throw ValidationError("--threads: at least 1") }
  }

  func memory() throws -> Int {
    try memoryLimit.map { try ByteCount($0, option: "--memory-limit").value } ?? Machine.physicalMemory / 2
  }

  /// Runs the work with the given number of threads; Ctrl-C and SIGTERM cancel it and let it clean up.
  func run<Result: Sendable>(_ work: @escaping @Sendable () async throws -> Result) async throws -> Result {
    let width = threads ?? Parallel.width
    let passes = CompressCommand.passes
    let task = Task {
      try await CompressCommand.$passes.withValue(passes) { try await Parallel.$width.withValue(width) { try await work() } }
    }
    let sources = [SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { task.cancel() }
      source.resume()
      return source
    }
    defer { for source in sources { source.cancel() } }
    return try await task.value
  }
}

enum ProgressStyle: String, ExpressibleByArgument, CaseIterable { case auto, plain, json, none }

extension URL {
  /// A path as the shell understands it: relative to the working directory.
  init(userPath: String) { self.init(filePath: NSString(string: userPath).expandingTildeInPath) }
}

/// Results go to standard output, everything else to standard error.
func printResult(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }
