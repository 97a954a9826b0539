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
  /// The flags that put a tiny model's tokens in place of texts.
  private static let flags = [
    "calibration.text=", "calibration.tokens=calibration.npy", "calibration.sequences=6", "calibration.length=32",
    "evaluation.text=", "evaluation.tokens=evaluation.npy", "evaluation.window=32",
  ].map { "--set \($0)" }.joined(separator: " ")

  /// Calls make from the job's directory by way of a shell, which says where that is.
  private func make(
    _ job: Job, _ targets: String..., model: String? = nil, out: String? = nil, flags: String = MakefileTests.flags
  ) async throws -> Command.Outcome {
    let settings = [
      "MODEL=\(model ?? job.model.path)", "OUT=\(out ?? job.results.path)", "COMPRESS=\(try Command.executable.get().path)",
      "FLAGS=\(flags)",
    ]
    return try await Command.run(
      ["-c", #"cd "$1" && shift && exec "$@""#, "sh", job.directory.path, try #require(Makefile.make), "-C", Makefile.folder.path]
        + settings
        + targets, of: URL(filePath: "/bin/sh"))
  }

  /// Outputs, without the files that say with which flags they were made.
  private func outputs(_ job: Job) throws -> [String] { try job.left().filter { !$0.hasPrefix(".") } }

  @Test func whatIsDoneIsNotDoneAgain() async throws {
    try await Job.withTinyModel { job in
      let first = try await make(job, "w4a16", "w8a16")
      #expect(first.status == 0, "\(first.errors)")
      #expect(try outputs(job) == ["model-w4a16", "model-w8a16"])
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

  @Test func otherFlagsMakeAnew() async throws {
    try await Job.withTinyModel { job in
      let other = Self.flags + " --set passes.rtn.bits=3"
      #expect(try await make(job, "w4a16-rtn").status == 0)
      let four = try job.bytes("model-w4a16-rtn", "model.safetensors")
      #expect(try await make(job, "w4a16-rtn", flags: other).status == 0)
      let three = try job.bytes("model-w4a16-rtn", "model.safetensors")
      #expect(three.count < four.count)
      let again = try await make(job, "w4a16-rtn", flags: other)
      #expect(again.output.contains("Nothing to be done"), "\(again.output)")
      #expect(try await make(job, "w4a16-rtn").status == 0)
      #expect(try job.bytes("model-w4a16-rtn", "model.safetensors") == four)
    }
  }

  @Test func relativePathsAreThoseOfTheCaller() async throws {
    try await Job.withTinyModel { job in
      let outcome = try await make(job, "w4a16-rtn", model: "model", out: "results")
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(try outputs(job) == ["model-w4a16-rtn"])
      let again = try await make(job, "w4a16-rtn", model: "./model/", out: job.results.path)
      #expect(again.output.contains("Nothing to be done"), "\(again.output)")
    }
  }

  @Test func anyCheckpointIsAModel() async throws {
    try await Job.withTinyModel { job in
      let converted = try await Command.run(["convert", "model", "--to", "gguf", "--output", "as.gguf"], in: job.directory)
      #expect(converted.status == 0, "\(converted.errors)")
      for (model, name) in [("as.gguf", "as.gguf-w8a16"), ("as.gguf/model.gguf", "model-w8a16")] {
        let outcome = try await make(job, "w8a16", model: model)
        #expect(outcome.status == 0 && (try? job.bytes(name, "report.json")) != nil, "\(outcome.errors)")
      }
      try FileManager.default.createDirectory(at: job.directory.appending(path: "empty"), withIntermediateDirectories: true)
      let empty = try await make(job, "w8a16", model: "empty")
      #expect(empty.status == 2 && empty.errors.contains("holds no weights"), "\(empty.errors)")
      let missing = try await make(job, "w8a16", model: "nowhere")
      #expect(missing.status == 2 && missing.errors.contains("is not there: \(job.directory.path)/nowhere"), "\(missing.errors)")
    }
  }

  @Test func aTableOfAllResults() async throws {
    try await Job.withTinyModel { job in
      #expect(try await make(job, "w4a16-rtn", "w8a16").status == 0)
      let outcome = try await make(job, "summary", out: "results")
      let lines = outcome.output.split(separator: "\n").filter { $0.hasPrefix("model-") }
      #expect(outcome.status == 0 && lines.count == 2, "\(outcome.output) \(outcome.errors)")
      let figures = try job.json("model-w8a16", "report.json")
      #expect(lines.last?.contains(" \(Int(figures.object("sizes").number("file_bytes_after"))) ") == true)
    }
  }

  @Test func aFailureStopsTheBatch() async throws {
    try await Job.withTinyModel { job in
      try Data("{}".utf8).write(to: job.model.appending(path: "config.json"))
      let outcome = try await make(job, "w4a16")
      #expect(outcome.status == 2 && outcome.errors.contains("error: "))
      #expect(try outputs(job).isEmpty)
    }
  }
}
