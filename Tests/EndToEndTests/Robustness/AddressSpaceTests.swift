import CompressKit
import Foundation
import TestSupport
import Testing

/// A limited address space (`ulimit -v`): the work is done, or it is refused before it begins; nothing waits for ever for memory that will not
/// come, and nothing dies of it in the middle.
@Suite struct AddressSpaceTests {
  /// Kibibytes, from less than the linear algebra takes for itself to plenty.
  private static let limits = [400_000, 500_000, 600_000, 700_000, 800_000, 900_000, 1_000_000, 1_300_000, 2_000_000, 6_000_000]

  private func run(_ arguments: [String], limit: Int, in working: URL) async throws -> Command.Outcome {
    let program = try Command.executable.get().path
    let line = "ulimit -v \(limit); exec timeout -s XCPU 60 '\(program)' " + arguments.map { "'\($0)'" }.joined(separator: " ")
    return try await Command.run(["-c", line], in: working, of: URL(filePath: "/bin/sh"))
  }

  @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/timeout"))) func theWorkIsDoneOrRefused() async throws {
    try await Job.withTinyModel { job in
      let commands = [
        ["--recipe", job.recipe.path, "--model", job.model.path, "--progress", "none", "--threads", "2"],
        ["eval", job.model.path, "--tokens", "evaluation.npy", "--window", "32", "--progress", "none", "--threads", "2"],
        ["calibrate", job.model.path, "--tokens", "calibration.npy", "--length", "32", "--sequences", "4", "--progress", "none"],
        ["convert", job.model.path, "--to", "npz", "--progress", "none"],
      ]
      for (index, command) in commands.enumerated() {
        var statuses: [Int32] = []
        for limit in Self.limits {
          let output = command[0] == "eval" ? [] : ["--output", job.output("\(index)-\(limit)").path]
          let outcome = try await run(command + output, limit: limit, in: job.working)
          #expect(outcome.status == 0 || outcome.status == 65, "\(command[0]), \(limit): \(outcome.status) \(outcome.errors)")
          if outcome.status != 0 { #expect(outcome.error?.contains("of address space are needed") == true, "\(outcome.errors)") }
          statuses.append(outcome.status)
        }
        #expect(statuses.first == 65 && statuses.last == 0, "\(command[0]): \(statuses)")
      }
    }
  }
}
