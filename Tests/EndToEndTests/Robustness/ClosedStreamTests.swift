import CompressKit
import Foundation
import TestSupport
import Testing

/// Standard streams that are closed or full: nothing that is only said ends a run, and nothing is ever said into a file of the model.
@Suite struct ClosedStreamTests {
  private func shell(_ line: String, _ job: Job) async throws -> Command.Outcome {
    let program = try Command.executable.get().path
    return try await Command.run(
      ["-c", line.replacing("COMPRESS", with: "'\(program)'")], in: job.working, of: URL(filePath: "/bin/sh"))
  }

  private func command(_ job: Job, to name: String) -> String {
    "COMPRESS --recipe '\(job.recipe.path)' --model '\(job.model.path)' --output '\(job.output(name).path)'"
  }

  @Test func progressThatCannotBeWrittenIsNotMissed() async throws {
    try await Job.withTinyModel { job in
      #expect(try await job.run(to: "whole").status == 0)
      let redirections = ["2>/dev/full", "2>&-", "2>&- <&-", "--progress json 2>/dev/full", "2> >(true)"]
      for (index, redirection) in redirections.enumerated() {
        let line = command(job, to: "\(index)") + " " + redirection
        let outcome = try await shell(redirection.contains(">(") ? "bash -c \"\(line)\"" : line, job)
        #expect(outcome.status == 0, "\(redirection): \(outcome.errors)")
        #expect(outcome.output.contains("perplexity"), "\(redirection)")
        #expect(try job.bytes("\(index)", "model.safetensors") == job.bytes("whole", "model.safetensors"), "\(redirection)")
      }
    }
  }

  @Test func resultsThatCannotBePrintedAreReported() async throws {
    try await Job.withTinyModel { job in
      #expect(try await job.run(to: "whole").status == 0)
      for (index, redirection) in [">/dev/full", ">&-", ">&- <&-"].enumerated() {
        let outcome = try await shell(command(job, to: "\(index)") + " --progress none " + redirection, job)
        #expect(
          outcome.status == 74 && outcome.errors.hasPrefix("error: the results could not be printed"), "\(redirection): \(outcome.errors)")
        #expect(try job.bytes("\(index)", "model.safetensors") == job.bytes("whole", "model.safetensors"), "\(redirection)")
      }
      // Nobody is left to hear of it.
      #expect(try await shell(command(job, to: "mute") + " >&- 2>&-", job).status == 74)
      #expect(try job.bytes("mute", "model.safetensors") == job.bytes("whole", "model.safetensors"))
    }
  }

  /// Whoever has read enough goes away, as `head` does.
  @Test func aReaderThatHasSeenEnoughIsNoFailure() async throws {
    try await Job.withTinyModel { job in
      let outcome = try await shell("(sleep 0.2; COMPRESS list passes; echo \"status $?\" >&2) | true", job)
      #expect(outcome.errors == "status 0\n")
    }
  }

  /// With descriptor 1 free, the first file that is opened would become standard output.
  @Test func nothingIsPrintedIntoTheModel() async throws {
    try await Job.withTinyModel { job in
      let before = try Data(contentsOf: job.model.appending(path: "model.safetensors"))
      for line in [
        "COMPRESS inspect '\(job.model.path)' >&-", "COMPRESS eval '\(job.model.path)' --tokens evaluation.npy --window 32 >&- 2>&- <&-",
      ] {
        #expect(try await shell(line, job).status == 74)
      }
      #expect(try Data(contentsOf: job.model.appending(path: "model.safetensors")) == before)
    }
  }
}
