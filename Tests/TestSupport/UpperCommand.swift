import Dispatch
public import Foundation
import Synchronization

/// The real command, run as a process.
public enum Command {
  public struct Outcome: Sendable {
    public let status: Int32
    public let output: String
    public let errors: String

    /// The first line on standard error that tells of a failure.
    public var error: String? { errors.split(separator: "\n").map(String.init).first { $0.lowercased().hasPrefix("error: ") } }
  }

  public struct NotFound: Error, CustomStringConvertible {
    public let tried: [String]
    public var description: String { "the compress executable is in none of \(tried.joined(separator: ", ")); run `swift build` first" }
  }

  /// The executable, found beside the tests that were built with it.
  public static let executable: Result<URL, NotFound> = Result(find)

  private static func find() throws(NotFound) -> URL {
    let bundles = Bundle.allBundles.map(\.bundleURL) + [Bundle.main.bundleURL]
    let arguments = CommandLine.arguments.filter { $0.contains("/") }.map { URL(filePath: $0) }
    var places: [URL] = []
    for start in bundles + arguments {
      // A test bundle may be a directory deep inside the one that holds the products.
      var place = start
      for _ in 0..<5 {
        places.append(place)
        place.deleteLastPathComponent()
      }
    }
    places += ["release", "debug"].map { Places.root.appending(path: ".build/\($0)") }
    let candidates = places.map { $0.appending(path: "compress") }
    for candidate in candidates {
      var isDirectory: ObjCBool = false
      if FileManager.default.fileExists(atPath: candidate.path, isDirectory: &isDirectory), !isDirectory.boolValue,
        FileManager.default.isExecutableFile(atPath: candidate.path)
      {
        return candidate
      }
    }
    throw NotFound(tried: candidates.map(\.path))
  }

  /// Runs the command to its end.
  ///
  /// - Parameters:
  ///   - directory: the working directory.
  ///   - program: what to run in place of the command.
  ///   - environment: is added to this process's own.
  ///   - watch: sees standard error grow, with what ends the process early at hand.
  ///   - started: has the process at hand as soon as it runs.
  public static func run(
    _ arguments: [String], in directory: URL? = nil, of program: URL? = nil, environment: [String: String] = [:],
    watch: (@Sendable (_ errors: String, _ process: Process) -> Void)? = nil, started: (@Sendable (Process) -> Void)? = nil
  ) async throws -> Outcome {
    let executable = try program ?? Self.executable.get()
    // On a thread of its own: the test's may have much to do before its turn comes again, and a process is not to wait for that.
    return try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread {
        continuation.resume(with: Swift.Result { try complete(executable, arguments, directory, environment, started, watch) })
      }
    }
  }

  private final class Printed: Sendable { let data = Mutex(Data()) }

  private static func complete(
    _ executable: URL, _ arguments: [String], _ directory: URL?, _ environment: [String: String], _ started: ((Process) -> Void)?,
    _ watch: ((String, Process) -> Void)?
  ) throws -> Outcome {
    let process = Process()
    process.executableURL = executable
    process.arguments = arguments
    if let directory { process.currentDirectoryURL = directory }
    if !environment.isEmpty { process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 } }
    let (output, errors) = (Pipe(), Pipe())
    (process.standardOutput, process.standardError) = (output, errors)
    process.standardInput = FileHandle.nullDevice
    try process.run()
    started?(process)
    let printed = Printed()
    let isRead = DispatchSemaphore(value: 0)
    let reading = output.fileHandleForReading
    Thread.detachNewThread {
      let all = reading.readDataToEndOfFile()
      printed.data.withLock { $0 = all }
      isRead.signal()
    }
    var complaints = Data()
    while true {
      let piece = errors.fileHandleForReading.availableData
      guard !piece.isEmpty else { break }
      complaints += piece
      watch?(String(decoding: complaints, as: UTF8.self), process)
    }
    isRead.wait()
    process.waitUntilExit()
    // A process that a signal ended reports the signal, as shells do.
    let status = process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
    return Outcome(
      status: status, output: printed.data.withLock { String(decoding: $0, as: UTF8.self) },
      errors: String(decoding: complaints, as: UTF8.self))
  }
}

extension Result where Failure == Command.NotFound {
  fileprivate init(_ body: () throws(Failure) -> Success) {
    do throws(Failure) { self = .success(try body()) } catch { self = .failure(error) }
  }
}
