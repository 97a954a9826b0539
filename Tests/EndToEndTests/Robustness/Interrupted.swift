import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

/// Does something once, whoever comes first.
final class Once: Sendable {
  private let isDone = Mutex(false)

  func callAsFunction(_ body: () -> Void) {
    let isFirst = isDone.withLock { isDone in
      defer { isDone = true }
      return !isDone
    }
    if isFirst { body() }
  }
}

extension Job {
  /// Seeds of the random moments; more of them by `COMPRESS_ROBUSTNESS_ROUNDS`.
  static let rounds = 0..<(ProcessInfo.processInfo.environment["COMPRESS_ROBUSTNESS_ROUNDS"].flatMap(Int.init) ?? 3)

  /// Whether there is a whole output of a name: one that opens, has its report, and evaluates to what that says.
  func holdsWholeOutput(_ name: String = "out") throws -> Bool {
    guard FileManager.default.fileExists(atPath: output(name).path) else { return false }
    let model = try Model(try Checkpoint(output(name)))
    for place in model.places { _ = try model.part(place) }
    let report = try json(name, "report.json")
    #expect(report.object("evaluation").number("perplexity_after").isFinite)
    #expect(FileManager.default.fileExists(atPath: output(name).appending(path: "recipe.yaml").path))
    return true
  }
}
