import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

/// Evaluations that are interrupted behind every block and taken up again have the same figures.
struct EvaluationJournalTests {
  private static let tokens = TinyModel.sequences(1, length: 83)[0]

  private static func models() throws -> (own: Model, reference: Model) {
    (try TinyModel.model(), try TinyModel.model(TinyModel.config.replacing("10000.0", with: "500.0")))
  }

  private static func journal(_ directory: URL, of run: String = "run") throws -> EvaluationJournal {
    EvaluationJournal(try RunJournal(at: directory, of: [], fresh: false), of: run, keepsEveryBlock: true)
  }

  /// Runs an evaluation that is cancelled once so many parts of models are done.
  private static func interrupt(_ evaluator: Evaluator, behind count: Int, _ journal: URL) async throws {
    let task = Task {
      let (own, reference) = try models()
      _ = try evaluator.evaluate(own, against: reference, on: tokens, journal: try Self.journal(journal)) { done, _ in
        if done >= count { withUnsafeCurrentTask { $0?.cancel() } }
      }
    }
    await #expect(throws: CancellationError.self) { try await task.value }
  }

  /// Two windows of 16 and 32 numbers of two models fit into 8 KiB, so that there are turns.
  @Test(arguments: [
    Evaluator(window: 16, memory: 1 << 13), Evaluator(window: 16, stride: 5, memory: 1 << 30),
    Evaluator(window: 16, chunk: 5, memory: 1 << 13),
  ])
  func interruptedBehindEveryBlock(evaluator: Evaluator) async throws {
    let (own, reference) = try Self.models()
    let total = Mutex(0)
    let expected = try evaluator.evaluate(own, against: reference, on: Self.tokens) { _, count in total.withLock { $0 = count } }
    for count in 1..<total.withLock({ $0 }) - 2 {
      try await Places.withTemporaryDirectory { directory in
        let place = directory.appending(path: "journal")
        try await Self.interrupt(evaluator, behind: count, place)
        let seen = Mutex([Int]())
        let resumed = try evaluator.evaluate(own, against: reference, on: Self.tokens, journal: try Self.journal(place)) { done, _ in
          seen.withLock { $0.append(done) }
        }
        #expect(resumed == expected, "behind \(count)")
        #expect(seen.withLock { $0.last } == total.withLock { $0 } && seen.withLock { $0 == $0.sorted() })
        let left = try FileManager.default.contentsOfDirectory(atPath: place.path)
        #expect(!left.contains { $0.contains("states") }, "\(left)")
      }
    }
  }

  /// Figures of other settings are not taken for these.
  @Test func whatAnotherEvaluationKeptIsPassedOver() throws {
    let (own, reference) = try Self.models()
    try Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "journal")
      _ = try Evaluator(window: 32).evaluate(own, against: reference, on: Self.tokens, journal: try Self.journal(place, of: "32")) { _, _ in
      }
      let expected = try Evaluator(window: 16).evaluate(own, against: reference, on: Self.tokens)
      let found = try Evaluator(window: 16).evaluate(
        own, against: reference, on: Self.tokens, journal: try Self.journal(place, of: "16")
      ) { _, _ in }
      #expect(found == expected)
    }
  }

  @Test func damageIsAnErrorThatNamesTheFile() async throws {
    let (own, reference) = try Self.models()
    let evaluator = Evaluator(window: 16, memory: 1 << 13)
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "journal")
      try await Self.interrupt(evaluator, behind: 14, place)
      let names = try FileManager.default.contentsOfDirectory(atPath: place.path).filter { $0.hasPrefix("evaluation") }
      #expect(names.contains { $0.contains("scores") } && names.contains { $0.contains("states") }, "\(names)")
      for name in names {
        let file = place.appending(path: name)
        let bytes = try Data(contentsOf: file)
        var changed = bytes
        changed[bytes.count - 3] ^= 4
        try changed.write(to: file)
        let error = #expect(throws: DamagedJournal.self) {
          try evaluator.evaluate(own, against: reference, on: Self.tokens, journal: try Self.journal(place)) { _, _ in }
        }
        #expect(error?.file == file.path)
        try bytes.write(to: file)
      }
    }
  }
}
