import CompressKit
import Foundation
import TestSupport
import Testing

/// Calls into the file system fail one after the other, or the process ends at them: the output is complete or absent, all else is as it was, and
/// the same command succeeds afterwards with the same bytes.
///
/// `tools/faults.c` stands between the program and the C library. Every so many calls are tried; all of them with `COMPRESS_FAULTS=1`.
@Suite(.serialized) struct FaultTests {
  /// The library that makes calls fail; `nil` where none can be built.
  static let library: URL? = {
    #if os(Linux)
      let library = FileManager.default.temporaryDirectory.appending(path: "compress-faults-\(getpid()).so")
      for compiler in ["clang", "cc"] {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [
          compiler, "-shared", "-fPIC", "-O1", "-o", library.path, Places.root.appending(path: "tools/faults.c").path, "-ldl",
        ]
        (process.standardOutput, process.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
        guard (try? process.run()) != nil else { continue }
        process.waitUntilExit()
        if process.terminationStatus == 0 { return library }
      }
    #endif
    return nil
  }()

  enum Mode: String, CaseIterable { case fail, stop }

  /// A command, what it makes, and every how many calls one is tried.
  struct Work: CustomTestStringConvertible {
    let name: String
    let stride: Int
    let arguments: @Sendable (Job) -> [String]
    var testDescription: String { name }

    static let all = [
      Work(name: "recipe", stride: 19) {
        ["--recipe", $0.recipe.path, "--model", $0.model.path, "--output", $0.output().path, "--progress", "none"]
      },
      Work(name: "replacement", stride: 37) {
        ["--recipe", $0.recipe.path, "--model", $0.model.path, "--output", $0.output().path, "--progress", "none", "--overwrite"]
      },
      Work(name: "hdf5", stride: 5) {
        ["convert", $0.model.path, "--to", "hdf5", "--output", $0.output().path, "--progress", "none"]
      },
      Work(name: "npz", stride: 7) {
        ["convert", $0.model.path, "--to", "npz", "--output", $0.output().path, "--progress", "none"]
      },
      Work(name: "statistics", stride: 7) {
        [
          "calibrate", $0.model.path, "--tokens", $0.directory.appending(path: "calibration.npy").path, "--length", "32", "--output",
          $0.output().path, "--progress", "none",
        ]
      },
    ]
  }

  /// Paths and contents of all files below a directory, but for those that say when they were made.
  private static func files(_ directory: URL) throws -> [String: Data] {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: directory.path, isDirectory: &isDirectory) else { return [:] }
    guard isDirectory.boolValue else { return ["": try Data(contentsOf: directory)] }
    let dated = ["report.json", ".compress-output.json"]
    return Dictionary(
      uniqueKeysWithValues: try FileManager.default.subpathsOfDirectory(atPath: directory.path).compactMap { path in
        let file = directory.appending(path: path)
        guard !dated.contains(file.lastPathComponent), let bytes = try? Data(contentsOf: file) else { return nil }
        return (path, bytes)
      })
  }

  private static func run(_ work: Work, _ job: Job, at call: Int, _ mode: Mode, log: URL) async throws -> Command.Outcome {
    try? FileManager.default.removeItem(at: log)
    return try await Command.run(
      work.arguments(job), in: job.working,
      environment: [
        "LD_PRELOAD": library!.path, "FAULTS_UNDER": job.directory.path, "FAULTS_AT": "\(call)", "FAULTS_MODE": mode.rawValue,
        "FAULTS_LOG": log.path,
      ])
  }

  @Test(
    .enabled(if: library != nil, "a C compiler and Linux are needed"),
    arguments: Work.all.flatMap { work in Mode.allCases.map { (work, $0) } })
  func everyCallMayFail(_ work: Work, _ mode: Mode) async throws {
    try await Places.withTemporaryDirectory { logs in
      try await Job.withTinyModel { job in
        let log = logs.appending(path: "log")
        func inputs() throws -> [String: Data] { try Self.files(job.directory).filter { !$0.key.hasPrefix("results") } }
        let before = try inputs()
        let whole = try await Self.run(work, job, at: 0, mode, log: log)
        try #require(whole.status == 0, "\(whole.errors)")
        let expected = try Self.files(job.output())
        let isReplacing = work.name == "replacement"
        func begin() throws {
          guard !isReplacing else { return }
          try FileManager.default.removeItem(at: job.results)
          try FileManager.default.createDirectory(at: job.results, withIntermediateDirectories: true)
        }
        let stride = ProcessInfo.processInfo.environment["COMPRESS_FAULTS"] == nil ? work.stride : 1
        var (call, tried) = (mode == .fail ? 1 : 1 + stride / 2, 0)
        while true {
          try begin()
          let outcome = try await Self.run(work, job, at: call, mode, log: log)
          let calls = ((try? String(contentsOf: log, encoding: .utf8)) ?? "").split(separator: "\n")
          guard calls.count >= call else { break }
          tried += 1
          let place = "\(work.name), \(mode): \(calls[call - 1]): \(outcome.status) \(outcome.errors)"
          // What only tidies up may fail without being told; the next run tidies up again.
          let statuses: [Int32] = mode == .stop ? [128 + SIGKILL] : [0, 65, 66, 74]
          #expect(statuses.contains(outcome.status), "\(place)")
          #expect(outcome.status == 0 || outcome.output.isEmpty, "\(place)")
          let made = try Self.files(job.output())
          #expect(made == expected || made.isEmpty && outcome.status != 0, "\(place): \(made.keys.sorted())")
          #expect(try inputs() == before, "\(place)")
          let left = try job.left()
          #expect(mode == .stop || outcome.status == 0 || left.allSatisfy { $0 == "out" }, "\(place): \(left)")
          let again = try await Command.run(work.arguments(job) + (made.isEmpty || isReplacing ? [] : ["--overwrite"]), in: job.working)
          #expect(again.status == 0, "\(place), and again \(again.errors)")
          #expect(try Self.files(job.output()) == expected, "\(place), and again")
          #expect(try FileManager.default.contentsOfDirectory(atPath: job.results.path) == ["out"], "\(place), and again")
          call += stride
        }
        #expect(tried > 5, "\(work.name), \(mode): \(tried) calls")
      }
    }
  }
}
