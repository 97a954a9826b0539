import Foundation
import TestSupport
import Testing

/// Runs that the world ends.
@Suite struct InterruptionTests {
  @Test(arguments: ["SIGINT", "SIGTERM"])
  func aSignalMidSweepLeavesNothing(signal: String) async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      let once = Once()
      let outcome = try await job.run(
        settings: ["calibration.sequences=3000"], "--progress", "plain",
        watch: { errors, process in
          if errors.contains("[1/4]") { once { if signal == "SIGINT" { process.interrupt() } else { process.terminate() } } }
        })
      #expect(outcome.status == 130, "\(outcome.errors)")
      #expect(outcome.error?.hasPrefix("error: interrupted") == true, "\(outcome.errors)")
      #expect(!outcome.errors.contains("[4/4]"))
      #expect(try job.left().isEmpty)
    }
  }

  @Test func anInterruptedReplacementKeepsTheOld() async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      #expect(try await job.run("--progress", "none").status == 0)
      let old = try job.bytes("out", "report.json")
      let once = Once()
      let outcome = try await job.run(
        settings: ["calibration.sequences=3000"], "--overwrite", "--progress", "plain",
        watch: { errors, process in if errors.contains("[1/4]") { once { process.interrupt() } } })
      #expect(outcome.status == 130, "\(outcome.errors)")
      #expect(try job.left() == ["out"])
      #expect(try job.bytes("out", "report.json") == old)
    }
  }

  // MARK: A full disk

  @discardableResult
  private static func shell(_ arguments: String...) -> Bool {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = arguments
    (process.standardOutput, process.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
    guard (try? process.run()) != nil else { return false }
    process.waitUntilExit()
    return process.terminationStatus == 0
  }

  /// Whether this machine lets us mount a small file system.
  static let mountsDisks: Bool = {
    guard geteuid() == 0 else { return false }
    return
      (try? Places.withTemporaryDirectory { directory in
        guard shell("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory.path) else { return false }
        return shell("umount", directory.path)
      }) ?? false
  }()

  @Test(.enabled(if: mountsDisks, "mounting a small file system needs root"), arguments: ["16k", "64k", "128k"])
  func aFullDisk(size: String) async throws {
    try await Job.withTinyModel { job in
      try #require(Self.shell("mount", "-t", "tmpfs", "-o", "size=\(size)", "tmpfs", job.results.path))
      defer { Self.shell("umount", job.results.path) }
      try await job.expectFailure(74, saying: "cannot be written", "No space left on device", "hint: ")
    }
  }

  @Test(.enabled(if: mountsDisks, "mounting a small file system needs root"))
  func aFullDiskForTheScratchFile() async throws {
    try await Job.withTinyModel(sequences: 200) { job in
      try #require(Self.shell("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", job.results.path))
      defer { Self.shell("umount", job.results.path) }
      let settings = ["calibration.sequences=200"]
      let least = try await job.leastMemory(["--set", settings[0]])
      try await job.expectFailure(
        74, saying: "No space left on device", settings: settings, with: ["--memory-limit", "\(least)"])
    }
  }
}
