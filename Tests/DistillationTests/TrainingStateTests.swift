import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

/// Ends a run when distillation has told of so many steps.
private final class Ending: PipelineObserver {
  private let steps: Int
  private let task = Mutex<Task<Report, any Error>?>(nil)

  init(behind steps: Int) { self.steps = steps }

  func ends(_ task: Task<Report, any Error>) { self.task.withLock { $0 = task } }

  func observe(_ event: PipelineEvent) {
    guard case .blockEnded(let name, let index, _, _) = event, name.contains("loss"), index + 1 == steps else { return }
    task.withLock { $0?.cancel() }
  }
}

/// A training that is interrupted behind some step goes on to the same bytes.
struct TrainingStateTests {
  @Test(arguments: [
    "{ rtn: { bits: 2, group_size: 16, symmetric: false } }, { distill: { moves: [scales, zero_points, norms], epochs: 3, batch: 2, rate: 0.01, scale_rate: 0.01, validate_every: 3 } }",
    "{ rtn: { bits: 3, group_size: 16 } }, { distill: { moves: [weights, norms, embeddings], epochs: 2, batch: 3, rate: 0.002, validate_every: 2 } }",
    "{ wanda: { sparsity: 0.5 } }, { distill: { moves: [lora], rank: 2, epochs: 2, batch: 3, rate: 0.01, validate_every: 1 } }",
    "{ low_rank: { ratio: 0.4 } }, { distill: { moves: [weights], epochs: 2, batch: 3, rate: 0.002, validate_every: 1 } }",
  ])
  func interruptedAndTakenUp(yaml: String) async throws {
    let model = try TinyModel.model()
    let passes = try Recipe(yaml: "passes: [ \(yaml) ]", file: "test", passes: .standard).passes
    let whole = Collected()
    let expected = try await Pipeline(passes).run(on: model, options: SweepOptions(calibration: Swept.sequences), into: whole)
    for steps in [1, 4] {
      try await Places.withTemporaryDirectory { directory in
        let journal = try RunJournal(at: directory.appending(path: "journal"), of: [], fresh: false)
        var options = SweepOptions(calibration: Swept.sequences)
        options.journal = SweepJournal(journal)
        let ending = Ending(behind: steps)
        let started = AsyncStream<Void>.makeStream()
        let task = Task { [options] in
          for await _ in started.stream { break }
          return try await Pipeline(passes).run(on: model, options: options, observer: ending, into: Collected())
        }
        ending.ends(task)
        started.continuation.yield()
        await #expect(throws: CancellationError.self) { try await task.value }
        let training = journal.directory.appending(path: "1-training.safetensors")
        // A run may end before the first step is kept.
        let isKept = FileManager.default.fileExists(atPath: training.path)
        #expect(isKept || steps == 1)
        let resumed = Collected()
        let report = try await Pipeline(passes).run(on: model, options: options, into: resumed)
        #expect(report.remarks.contains { $0.contains("taken up again behind step") } == isKept, "\(report.remarks)")
        func figures(_ report: Report) -> [Double] {
          report.training.flatMap { $0.curve.flatMap { [$0.loss, $0.lossKeptOut] } + [$0.lossAfter] }
        }
        #expect(figures(report) == figures(expected) && report.training.map(\.bestStep) == expected.training.map(\.bestStep))
        #expect(!FileManager.default.fileExists(atPath: training.path))
        for (part, other) in zip(await whole.parts, await resumed.parts) {
          #expect(part.norms == other.norms)
          for (name, linear) in part.linears { #expect(linear.weight.dense() == other[name].weight.dense(), "\(yaml): \(name)") }
        }
      }
    }
  }
}
