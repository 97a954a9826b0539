import CompressKit
import Foundation
import TestSupport
import Testing

/// What a report says of its run, and a stored recipe that means the same wherever it is run.
@Suite struct ProvenanceTests {
  /// Every file is found beside the recipe, by a relative name.
  private static let yaml = """
    calibration: { tokens: calibration.npy, sequences: 6, length: 32 }
    probes: { tokens: probes.npy, sequences: 2, length: 32 }
    passes:
      - allocate: { target: 4bpw, candidates: [ { bits: 2, group_size: 32 }, { bits: 8, group_size: 32 } ] }
      - distill: { teacher: original, moves: [scales, norms], batch: 2, validate_every: 1 }
    evaluation: { tokens: evaluation.npy, window: 32 }
    output: { format: safetensors }
    """

  private static func bytes(_ file: URL) throws -> Int {
    try #require(try FileManager.default.attributesOfItem(atPath: file.path)[.size] as? Int)
  }

  private func withJob(_ body: (Job) async throws -> Void) async throws {
    try await Job.withTinyModel(Self.yaml) { job in
      try FileManager.default.createSymbolicLink(at: job.directory.appending(path: "original"), withDestinationURL: job.model)
      try TinyModel.write(
        tokens: TinyModel.sequences(2, length: 32).flatMap { $0 }, to: job.directory.appending(path: "probes.npy"))
      try await body(job)
    }
  }

  @Test func aReportSaysWhatWasRunOnWhat() async throws {
    try await withJob { job in
      let before = Date.now
      let outcome = try await job.run("--threads", "2")
      let took = Date.now.timeIntervalSince(before)
      #expect(outcome.status == 0, "\(outcome.errors)")
      let report = try JSON(parsing: String(decoding: try job.bytes("out", "report.json"), as: UTF8.self))
      #expect(try ReportKeys.undocumented(in: report).isEmpty && !ReportKeys.metrics(of: report).isEmpty)

      let run = try #require(report["run"])
      let arguments = run["arguments"]?.elements?.compactMap(\.string) ?? []
      #expect(
        arguments.dropFirst() == ["--recipe", job.recipe.path, "--model", job.model.path, "--output", job.output().path, "--threads", "2"])
      #expect(run["recipe"]?.string == String(decoding: try job.bytes("out", "recipe.yaml"), as: UTF8.self))
      #expect(report["schema"]?.integer == CompressionReport.schemaVersion && report["toolkit_version"]?.string == toolkitVersion)
      #expect(report["format"]?.string == "safetensors" && run["machine"]?["threads"]?.integer == 2)

      let model = try #require(run["model"])
      #expect(model["path"]?.string == job.model.standardizedFileURL.path && model["configuration_sha256"]?.string?.count == 64)
      // The teacher is the same checkpoint by another name.
      let teacher = try #require(run["teachers"]?.elements?.first)
      #expect(teacher["weights_fingerprint"] == model["weights_fingerprint"] && teacher["path"] != model["path"])
      let data = run["data"]?.elements ?? []
      #expect(data.map { $0["use"]?.string } == ["calibration", "probes", "evaluation"])
      for record in data {
        let file = URL(filePath: try #require(record["path"]?.string))
        #expect(file.deletingLastPathComponent().path == job.directory.standardizedFileURL.path)
        #expect(record["bytes"]?.integer == (try Self.bytes(file)) && record["sha256"]?.string?.count == 64)
      }
      #expect(Set(data.map { $0["sha256"]?.string }).count == 3)

      let (started, ended) = (try #require(run["started_at"]?.string), try #require(run["ended_at"]?.string))
      let times = try [started, ended].map { try Date($0, strategy: .iso8601) }
      #expect(abs(times[0].timeIntervalSince(before)) < took + 2 && times[0] <= times[1])
      let phases = run["phases"]?.elements ?? []
      #expect(phases.map { $0["name"]?.string } == ["plan", "preflight", "compress", "evaluate"])
      let seconds = phases.compactMap { $0["seconds"]?.double }
      #expect(seconds.allSatisfy { $0 > 0 } && seconds.reduce(0, +) <= took)
      #expect(seconds[2] >= report["sweep_seconds"]?.double ?? .infinity)

      let sizes = try #require(report["sizes"])
      #expect(sizes["file_bytes_before"]?.integer == (try Self.bytes(job.model.appending(path: "model.safetensors"))))
      #expect(sizes["file_bytes_after"]?.integer == (try Self.bytes(job.output().appending(path: job.weights()))))
    }
  }

  /// The hub's cache holds links, whose own sizes are not what is asked for.
  @Test func linksAndPipes() async throws {
    try await Job.withTinyModel("passes: [ { rtn: { bits: 4, group_size: 32 } } ]\nevaluation: { tokens: evaluation.npy, window: 32 }") {
      job in
      var linked = job
      linked.model = job.directory.appending(path: "linked")
      try FileManager.default.createDirectory(at: linked.model, withIntermediateDirectories: true)
      for name in ["config.json", "model.safetensors"] {
        try FileManager.default.createSymbolicLink(
          at: linked.model.appending(path: name), withDestinationURL: job.model.appending(path: name))
      }
      let tokens = job.directory.appending(path: "evaluation.npy")
      let link = job.directory.appending(path: "link.npy")
      try FileManager.default.createSymbolicLink(at: link, withDestinationURL: tokens)
      #expect(try await linked.run(settings: ["evaluation.tokens=\(link.path)"]).status == 0)
      let report = try job.json("out", "report.json")
      #expect(report.object("sizes").number("file_bytes_before") == Double(try Self.bytes(job.model.appending(path: "model.safetensors"))))
      #expect(report.object("run").list("data")[0].number("bytes") == Double(try Self.bytes(tokens)))

      let command = try Command.executable.get().path
      let arguments = "--recipe \(job.recipe.path) --model \(job.model.path) --output \(job.output("piped").path)"
      let piped = try await Command.run(
        ["-c", "cat '\(tokens.path)' | '\(command)' \(arguments) --set evaluation.tokens=/dev/stdin"], of: URL(filePath: "/bin/sh"))
      #expect(piped.status == 65 && piped.error?.contains("this is a pipe") == true, "\(piped.errors)")
    }
  }

  /// Another model under the same path is told from it.
  @Test func anotherModelHasAnotherFingerprint() async throws {
    try await Job.withTinyModel("passes: [ { rtn: { bits: 4, group_size: 32 } } ]") { job in
      #expect(try await job.run(to: "one").status == 0)
      try FileManager.default.removeItem(at: job.model)
      try await TinyModel.write(
        to: job.model, Job.config.replacing(#""rms_norm_eps":1e-05"#, with: #""rms_norm_eps":1e-06"#), dtype: .float32)
      #expect(try await job.run(to: "two").status == 0)
      let (one, two) = (try job.json("one", "report.json").object("run"), try job.json("two", "report.json").object("run"))
      for key in ["configuration_sha256", "weights_fingerprint"] {
        #expect(one.object("model")[key] as? String != two.object("model")[key] as? String, "\(key)")
      }
      #expect(one.object("model")["path"] as? String == two.object("model")["path"] as? String)
      #expect(one.list("data").isEmpty)
    }
  }

  @Test func aStoredRecipeRunsFromAnywhere() async throws {
    try await withJob { job in
      #expect(try await job.run(to: "one").status == 0)
      // Where other files have the names that the recipe's had.
      var elsewhere = job
      elsewhere.working = job.directory.appending(path: "elsewhere")
      try FileManager.default.createDirectory(at: elsewhere.working, withIntermediateDirectories: true)
      for name in ["calibration.npy", "evaluation.npy", "probes.npy", "original"] {
        try Data("not this one".utf8).write(to: elsewhere.working.appending(path: name))
      }
      let outcome = try await elsewhere.run(to: "again", recipe: job.output("one").appending(path: "recipe.yaml"))
      #expect(outcome.status == 0, "\(outcome.errors)")
      for file in [job.weights("one"), "config.json", "recipe.yaml"] {
        #expect(try job.bytes("one", file) == job.bytes("again", file), "\(file)")
      }
      let figures = try ["one", "again"].map { try job.json($0, "report.json").object("evaluation").number("perplexity_after") }
      #expect(figures[0] == figures[1])
      let recipe = String(decoding: try job.bytes("one", "recipe.yaml"), as: UTF8.self)
      for name in ["calibration.npy", "evaluation.npy", "probes.npy", "original"] {
        #expect(recipe.contains(job.directory.standardizedFileURL.appending(path: name).path), "\(name)")
      }
    }
  }
}
