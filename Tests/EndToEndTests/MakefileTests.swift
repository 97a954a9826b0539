import Foundation
import TestSupport
import Testing

/// The recipes' Makefile, and the program that reads it.
private enum Makefile {
  static let folder = Places.root.appending(path: "Recipes")
  static let make = ["/usr/bin/make", "/bin/make", "/usr/local/bin/make"].first { FileManager.default.isExecutableFile(atPath: $0) }
  static let isPossible = make != nil && FileManager.default.fileExists(atPath: folder.appending(path: "Makefile").path)
}

/// Batch use: `make -C Recipes`.
@Suite(.enabled(if: Makefile.isPossible, "Recipes/Makefile or make is absent")) struct MakefileTests {
  private func make(_ job: Job, _ targets: String...) async throws -> Command.Outcome {
    let settings = [
      "calibration.text=", "calibration.tokens=\(job.directory.path)/calibration.npy", "calibration.sequences=6", "calibration.length=32",
      "evaluation.text=", "evaluation.tokens=\(job.directory.path)/evaluation.npy", "evaluation.window=32",
    ]
    let flags = settings.map { "--set \($0)" }.joined(separator: " ")
    return try await Command.run(
      [
        "-C", Makefile.folder.path, "MODEL=\(job.model.path)", "OUT=\(job.results.path)", "COMPRESS=\(Command.executable.get().path)",
        "FLAGS=\(flags)",
      ] + targets, of: URL(filePath: try #require(Makefile.make)))
  }

  @Test func whatIsDoneIsNotDoneAgain() async throws {
    try await Job.withTinyModel { job in
      let first = try await make(job, "w4a16", "w8a16")
      #expect(first.status == 0, "\(first.errors)")
      #expect(try job.left() == ["model-w4a16", "model-w8a16"])
      let weights = try job.bytes("model-w4a16", "model.safetensors")
      let again = try await make(job, "w4a16", "w8a16")
      #expect(again.status == 0 && again.errors.isEmpty && again.output.contains("Nothing to be done"), "\(again.output)")
      // A changed model is done again.
      let config = job.model.appending(path: "config.json")
      try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSinceNow: 2)], ofItemAtPath: config.path)
      let changed = try await make(job, "w4a16")
      #expect(changed.status == 0 && changed.errors.contains("preflight"), "\(changed.errors)")
      #expect(try job.bytes("model-w4a16", "model.safetensors") == weights)
    }
  }

  @Test func aFailureStopsTheBatch() async throws {
    try await Job.withTinyModel { job in
      try Data("{}".utf8).write(to: job.model.appending(path: "config.json"))
      let outcome = try await make(job, "w4a16")
      #expect(outcome.status == 2 && outcome.errors.contains("error: "))
      #expect(try job.left().isEmpty)
    }
  }
}
