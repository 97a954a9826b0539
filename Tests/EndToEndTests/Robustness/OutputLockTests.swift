import Foundation
import Synchronization
import TestSupport
import Testing

/// Two runs at once with one output.
@Suite struct OutputLockTests {
  private final class Seen: Sendable {
    let refused = Mutex<[Command.Outcome]>([])
    let identifier = Mutex<Int32>(0)

    func run(_ arguments: [String], _ job: Job) async {
      guard let outcome = try? await Command.run(arguments, in: job.working) else { return }
      refused.withLock { $0.append(outcome) }
    }
  }

  @Test func theSecondIsRefusedBeforeItWorksAndTheFirstIsWhole() async throws {
    try await Job.withTinyModel(sequences: 200) { job in
      let (seen, once) = (Seen(), Once())
      let first = try await job.run(
        settings: ["calibration.sequences=200"], "--progress", "plain",
        watch: { errors, process in
          guard errors.contains("[1/4]") else { return }
          // It stands still, and does so in the midst of its work, until the others have been refused.
          once {
            kill(process.processIdentifier, SIGSTOP)
            seen.identifier.withLock { $0 = process.processIdentifier }
            let done = DispatchSemaphore(value: 0)
            Task.detached {
              let again = ["--recipe", job.recipe.path, "--model", job.model.path, "--output", job.output().path]
              await seen.run(again + ["--overwrite"], job)
              await seen.run(again, job)
              await seen.run(["convert", job.model.path, "--to", "safetensors", "--output", job.output().path], job)
              done.signal()
            }
            done.wait()
            kill(process.processIdentifier, SIGCONT)
          }
        })
      #expect(first.status == 0, "\(first.errors)")
      let (outcomes, identifier) = (seen.refused.withLock { $0 }, seen.identifier.withLock { $0 })
      #expect(outcomes.count == 3)
      for outcome in outcomes {
        #expect(outcome.status == 75 && outcome.output.isEmpty, "\(outcome.errors)")
        #expect(outcome.error?.contains("is being made by process \(identifier)") == true, "\(outcome.errors)")
        #expect(!outcome.errors.contains("preflight") && !outcome.errors.contains("convert\n"))
      }
      #expect(try job.left() == ["out"] && job.holdsWholeOutput())
    }
  }

  /// Whoever comes first; nobody's weights are anybody else's.
  @Test func ofManyAtOnceOneSucceeds() async throws {
    try await Job.withTinyModel { job in
      let outcomes = try await withThrowingTaskGroup(of: Command.Outcome.self) { group in
        for bits in [3, 4, 5, 6, 8, 8] {
          group.addTask { try await job.run(settings: ["passes.gptq.bits=\(bits)"], "--progress", "none") }
        }
        return try await group.reduce(into: []) { $0.append($1) }
      }
      let won = outcomes.filter { $0.status == 0 }
      #expect(!won.isEmpty && outcomes.allSatisfy { [0, 64, 75].contains($0.status) }, "\(outcomes.map(\.errors))")
      #expect(won.count == 1, "the others found the output there, or being made")
      #expect(try job.left() == ["out"] && job.holdsWholeOutput())
      let scored = try await Command.run(
        ["eval", job.output().path, "--tokens", "evaluation.npy", "--window", "32", "--json", "--progress", "none"], in: job.working)
      let figures = try #require(try JSONSerialization.jsonObject(with: Data(scored.output.utf8)) as? [String: Any])
      let reported = try job.json("out", "report.json").object("evaluation").number("perplexity_after")
      #expect(abs(figures.number("perplexity") / reported - 1) < 1e-6)
    }
  }
}
