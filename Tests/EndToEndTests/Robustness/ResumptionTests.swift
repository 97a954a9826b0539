import CompressKit
import Foundation
import TestSupport
import Testing

/// Runs that die at any moment are taken up again by the next, to the same bytes.
@Suite struct ResumptionTests {
  private static let recipes = [
    "gptq: { bits: 4, group_size: 64, drift_correction: 0.5, refine: 2 }",
    "allocate: { target: 5bpw, probes: 2, candidates: [{ bits: 3, group_size: 64 }, { bits: 8, group_size: 64 }] }",
    "prune_width: { ratio: 0.25 }\n  - gptq: { bits: 4, group_size: 32 }",
    "sparsegpt: { sparsity: 0.5 }",
    "gptq: { bits: 2, group_size: 64 }\n  - tune: { moves: [scales, norms], epochs: 1 }\n  - distill: { epochs: 2, batch: 2 }",
  ]

  private static func yaml(_ passes: String) -> String {
    """
    calibration: { tokens: calibration.npy, sequences: 24, length: 32 }
    passes:
      - \(passes)
    evaluation: { tokens: evaluation.npy, window: 32 }
    """
  }

  @Test(arguments: recipes.indices) func killedAgainAndAgain(recipe index: Int) async throws {
    try await Job.withTinyModel(Self.yaml(Self.recipes[index]), sequences: 24) { job in
      let first = try await job.run(to: "first", "--progress", "none")
      #expect(first.status == 0, "\(first.errors)")
      var random = KeyedRandomness(seed: UInt64(index), key: "resumption")
      var (wasTakenUp, ends) = (false, 0)
      for _ in 0..<(2 * Job.rounds.count) {
        // Some time behind one of the parts, so that a fast machine and a slow one are met alike.
        let (part, pause) = (Int.random(in: 1...3, using: &random), UInt32.random(in: 0..<30_000, using: &random))
        let once = Once()
        let outcome = try await job.run(
          "--progress", "plain",
          watch: { errors, process in
            if errors.contains("[\(part)/4]") {
              once {
                usleep(pause)
                kill(process.processIdentifier, SIGKILL)
              }
            }
          })
        #expect([0, 128 + SIGKILL].contains(outcome.status), "\(outcome.status) \(outcome.errors)")
        wasTakenUp = wasTakenUp || outcome.errors.contains("taken up again")
        guard outcome.status == 0 else { continue }
        #expect(try job.bytes("out", "model.safetensors") == job.bytes("first", "model.safetensors"))
        #expect(try job.bytes("out", "config.json") == job.bytes("first", "config.json"))
        ends += 1
        try FileManager.default.removeItem(at: job.output())
      }
      let last = try await job.run("--progress", "plain")
      #expect(last.status == 0, "\(last.errors)")
      #expect(wasTakenUp || last.errors.contains("taken up again"), "no run got far enough to be taken up again; \(ends) ended")
      #expect(try job.bytes("out", "model.safetensors") == job.bytes("first", "model.safetensors"))
      #expect(try FileManager.default.contentsOfDirectory(atPath: job.results.path).sorted() == ["first", "out"])
    }
  }

  private static let slow = ["calibration.sequences=3000"]

  /// Behind the first part of a run that is long enough to be stopped there.
  private static func interrupt(_ job: Job) async throws -> Command.Outcome {
    let once = Once()
    return try await job.run(
      settings: slow, "--progress", "plain", watch: { errors, process in if errors.contains("[2/4]") { once { process.interrupt() } } })
  }

  @Test func anotherRecipeIsRefusedUntilToldToStartOver() async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      let stopped = try await Self.interrupt(job)
      #expect(stopped.status == 130 && stopped.errors.contains("the same command goes on from there"), "\(stopped.errors)")
      let status = try await Command.run(["status", job.output().path, "--json"], in: job.working)
      let state = try #require(try JSONSerialization.jsonObject(with: Data(status.output.utf8)) as? [String: Any])
      #expect(state["state"] as? String == "interrupted")
      let phase = try #require(state.list("phases").first)
      #expect(phase.number("parts") == 4 && (1...3).contains(Int(phase.number("finished"))))
      let words = try await Command.run(["status", job.output().path], in: job.working)
      #expect(words.output.contains("interrupted") && words.output.contains("gptq: \(Int(phase.number("finished"))) of 4 parts"))

      let other = try await job.run(settings: Self.slow + ["passes.gptq.bits=3"], "--progress", "none")
      #expect(other.status == 64 && other.errors.contains("bits: 4") && other.errors.contains("bits: 3"), "\(other.errors)")
      #expect(other.errors.contains("--fresh"))
      // What is scored on does not matter to what is kept.
      let resumed = try await job.run(settings: Self.slow + ["evaluation.limit=64"], "--progress", "plain")
      #expect(resumed.status == 0 && resumed.errors.contains("taken up again"), "\(resumed.errors)")
      let remarks = try job.json("out", "report.json")["remarks"] as? [String] ?? []
      #expect(remarks.contains { $0.hasPrefix("taken up again") })
      #expect(try FileManager.default.contentsOfDirectory(atPath: job.results.path) == ["out"])
      let done = try await Command.run(["status", job.output().path], in: job.working)
      #expect(done.output.contains("complete"))
    }
  }

  @Test func startingOverForgetsAndNoJournalKeepsNothing() async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      #expect(try await Self.interrupt(job).status == 130)
      let over = try await job.run("--fresh", "--progress", "plain")
      #expect(over.status == 0 && !over.errors.contains("taken up again"), "\(over.errors)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: job.results.path) == ["out"])
      let once = Once()
      let stopped = try await job.run(
        to: "other", settings: Self.slow, "--no-journal", "--progress", "plain",
        watch: { errors, process in if errors.contains("[2/4]") { once { process.interrupt() } } })
      #expect(stopped.status == 130 && !stopped.errors.contains("goes on from there"), "\(stopped.errors)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: job.results.path) == ["out"])
      let both = try await job.run("--fresh", "--no-journal")
      #expect(both.status == 64)
    }
  }

  @Test func whatIsNotThereHasAState() async throws {
    try await Job.withTinyModel { job in
      let status = try await Command.run(["status", job.output("nothing").path], in: job.working)
      #expect(status.status == 0 && status.output.contains("nobody makes it"))
    }
  }
}
