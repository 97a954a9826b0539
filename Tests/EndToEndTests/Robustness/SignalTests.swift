import CompressKit
import Foundation
import TestSupport
import Testing

/// Runs that are ended at any moment: there is no output or a whole one, and the next run clears away what is left.
@Suite struct SignalTests {
  private static let signals = [SIGINT, SIGTERM, SIGHUP, SIGKILL]

  @Test(arguments: Job.rounds, signals)
  func anyMomentWillDo(round: Int, signal: Int32) async throws {
    try await Job.withTinyModel { job in
      var random = KeyedRandomness(seed: UInt64(round), key: "signal \(signal)")
      let start = ContinuousClock.now
      #expect(try await job.run(to: "first", "--progress", "none").status == 0)
      let whole = start.duration(to: .now)
      for attempt in 0..<3 {
        let delay = whole * Double.random(in: 0...1.1, using: &random)
        let outcome = try await Command.run(
          ["--recipe", job.recipe.path, "--model", job.model.path, "--output", job.output().path, "--overwrite"], in: job.working,
          started: { process in
            let (identifier, pause) = (process.processIdentifier, delay)
            Task.detached {
              try await Task.sleep(for: pause)
              kill(identifier, signal)
            }
          })
        let expected: Set<Int32> = [0, 130, 128 + signal]
        #expect(expected.contains(outcome.status), "\(outcome.status) after \(delay) in attempt \(attempt): \(outcome.errors)")
        _ = try job.holdsWholeOutput()
        // A process that was killed cannot take away what it made; any other does.
        if signal != SIGKILL { #expect(try Set(job.left()).isSubset(of: ["first", "out"]), "\(outcome.errors)") }
      }
      let next = try await job.run("--overwrite", "--progress", "none")
      #expect(next.status == 0, "\(next.errors)")
      #expect(try job.left() == ["first", "out"] && job.holdsWholeOutput())
      #expect(try job.bytes("out", "model.safetensors") == job.bytes("first", "model.safetensors"))
    }
  }

  @Test func aClosedTerminalLeavesNothing() async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      let once = Once()
      let outcome = try await job.run(
        settings: ["calibration.sequences=3000"], "--progress", "plain",
        watch: { errors, process in if errors.contains("[1/4]") { once { kill(process.processIdentifier, SIGHUP) } } })
      #expect(outcome.status == 130 && outcome.error?.hasPrefix("error: interrupted") == true, "\(outcome.errors)")
      #expect(try job.left().isEmpty)
    }
  }

  @Test func underNohupTheTerminalMayClose() async throws {
    try await Job.withTinyModel { job in
      let command = """
        trap '' HUP
        \(try Command.executable.get().path) --recipe \(job.recipe.path) --model \(job.model.path) --output \(job.output().path) &
        sleep 0.05; kill -HUP $!; wait $!
        """
      let outcome = try await Command.run(["-c", command], in: job.working, of: URL(filePath: "/bin/sh"))
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(try job.left() == ["out"])
    }
  }

  /// The second signal does not wait for anything, and what it leaves is the next run's to clear.
  @Test func whoAsksTwiceIsObeyedAtOnce() async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      let once = Once()
      let outcome = try await job.run(
        settings: ["calibration.sequences=3000"], "--progress", "plain",
        watch: { errors, process in
          if errors.contains("[1/4]") {
            once {
              for _ in 0..<50 where process.isRunning {
                kill(process.processIdentifier, SIGINT)
                usleep(2000)
              }
            }
          }
        })
      #expect(outcome.status == 130, "\(outcome.errors)")
      #expect(try await job.run("--fresh", "--progress", "none").status == 0)
      #expect(try job.left() == ["out"])
    }
  }

  /// Figures belong to an output: without them there is none.
  @Test func anEndDuringTheEvaluationLeavesNothing() async throws {
    try await Job.withTinyModel { job in
      try TinyModel.write(tokens: TinyModel.sequences(3000, length: 32).flatMap { $0 }, to: job.directory.appending(path: "evaluation.npy"))
      let once = Once()
      let outcome = try await job.run(
        "--progress", "plain", watch: { errors, process in if errors.contains("\nevaluate\n") { once { process.terminate() } } })
      #expect(outcome.status == 130, "\(outcome.errors)")
      #expect(try job.left().isEmpty)
      #expect(try await job.run(settings: ["evaluation.limit=64"], "--progress", "none").status == 0)
    }
  }

  @Test func convertingAndCalibratingEndAsCleanly() async throws {
    try await Job.withTinyModel(sequences: 3000) { job in
      let once = Once()
      let calibrate = try await Command.run(
        [
          "calibrate", job.model.path, "--tokens", "calibration.npy", "--sequences", "3000", "--length", "32", "--output",
          job.output("s.h5").path, "--progress", "plain",
        ], in: job.working, watch: { errors, process in if errors.contains("[1/4]") { once { process.terminate() } } })
      #expect(calibrate.status == 130, "\(calibrate.errors)")
      #expect(try job.left().isEmpty)
    }
  }
}
