import CompressKit
import Foundation
import TestSupport
import Testing

/// Whole runs of the real command on a model of a few hundred thousand weights.
@Suite struct TinyRunTests {
  static let recipes = [
    Job.yaml,
    Job.yaml.replacing("{ bits: 4, group_size: 128 }", with: "{ bits: 8, group_size: channel, layers: { include: ['*', lm_head] } }"),
    Job.yaml.replacing("{ bits: 4, group_size: 128 }", with: "{ bits: 3, group_size: 32, symmetric: false, order: group }"),
    Job.yaml.replacing("gptq: {", with: "rtn: { importance: activations,"),
    Job.yaml.replacing("gptq: {", with: "rtn: {").replacing("calibration: {", with: "# {"),
    Job.yaml.replacing("gptq: { bits: 4, group_size: 128 }", with: "ggml: { type: q4_0, importance: activations }")
      + "\noutput: { format: gguf }",
    Job.yaml.replacing("128 }", with: "128, layers: { exclude: [o_proj] }, overrides: [{ layers: down_proj, bits: 8 }] }"),
  ]

  @Test(arguments: recipes)
  func aRunLeavesWhatItReports(yaml: String) async throws {
    try await Job.withTinyModel(yaml) { job in
      let outcome = try await job.run("--threads", "2")
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(outcome.output.contains("perplexity") && outcome.output.contains("bits per weight"))
      #expect(try job.left() == ["out"])
      let files = try FileManager.default.contentsOfDirectory(atPath: job.output().path).sorted()
      #expect(files == [".compress-output.json", "config.json", job.weights(), "recipe.yaml", "report.json"])
      try await checkResult(of: job, named: "out", tokens: ["--tokens", "evaluation.npy"], window: 32)
    }
  }

  @Test(arguments: recipes)
  func theBytesDependOnTheRecipeAlone(yaml: String) async throws {
    try await Job.withTinyModel(yaml) { (job) async throws in
      #expect(try await job.run(to: "one", "--threads", "1").status == 0)
      #expect(try await job.run(to: "two", "--threads", "2").status == 0)
      let least = try await job.leastMemory(["--threads", "2"])
      #expect(try await job.run(to: "spilled", "--threads", "2", "--memory-limit", "\(least)").status == 0)
      let stored = job.output("one").appending(path: "recipe.yaml")
      #expect(try await job.run(to: "again", recipe: stored).status == 0)
      for file in [job.weights("one"), "config.json", "recipe.yaml"] {
        for other in ["two", "spilled", "again"] {
          #expect(try job.bytes("one", file) == job.bytes(other, file), "\(file) of \(other)")
        }
      }
    }
  }

  @Test func shardsHoldTheSameTensors() async throws {
    try await Job.withTinyModel { job in
      #expect(try await job.run(to: "one").status == 0)
      #expect(try await job.run(to: "many", settings: ["output.max_shard_size=40kB"]).status == 0)
      let files = try FileManager.default.contentsOfDirectory(atPath: job.output("many").path)
      #expect(files.contains("model.safetensors.index.json") && files.filter { $0.hasSuffix(".safetensors") }.count > 2)
      let (one, many) = (try Checkpoint(job.output("one")), try Checkpoint(job.output("many")))
      #expect(Set(one.tensors.names) == Set(many.tensors.names))
      for name in one.tensors.names { #expect(try one.tensors.tensor(name).bytes == many.tensors.tensor(name).bytes, "\(name)") }
    }
  }

  @Test func aDryRunWritesNothingAndListsEverything() async throws {
    try await Job.withTinyModel { job in
      let outcome = try await job.run("--dry-run")
      #expect(outcome.status == 0 && outcome.errors.isEmpty)
      #expect(try job.left().isEmpty)
      let linears = try Pipeline([]).plan(for: Model(Checkpoint(job.model)))
      let lines = outcome.output.split(separator: "\n").map(String.init)
      for linear in linears {
        let line = try #require(lines.first { $0.hasPrefix(linear.name + " ") }, "\(linear.name)")
        #expect(line.contains("\(linear.rows)×\(linear.columns)") && line.contains("int4 g128") == !linear.isEnd)
      }
      #expect(outcome.output.contains("6 sequences, 192 tokens"))
      let json = try await job.run("--dry-run", "--json")
      let plan = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
      #expect(plan.list("linears").compactMap { $0["name"] as? String } == linears.map(\.name))
      #expect(plan.number("calibration_tokens") == 192 && plan.number("bytes_after") < plan.number("bytes_before"))
      #expect(plan.number("peak_memory_bytes") > 0 && plan.number("seconds") > 0)
    }
  }

  @Test func thePrintedRecipePrintsItself() async throws {
    try await Job.withTinyModel { job in
      let first = try await job.run(settings: ["passes.gptq.damping=0.02"], "--print-recipe", "--seed", "5")
      #expect(first.status == 0 && first.output.contains("damping: 0.02") && first.output.contains("seed: 5"))
      let file = job.directory.appending(path: "printed.yaml")
      try Data(first.output.utf8).write(to: file)
      #expect(try await job.run(recipe: file, "--print-recipe").output == first.output)
      #expect(try job.left().isEmpty)
    }
  }

  @Test func progressGoesWhereItIsSent() async throws {
    try await Job.withTinyModel { job in
      let json = try await job.run(to: "json", "--progress", "json", "--json")
      let events = try json.errors.split(separator: "\n").map {
        try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])["event"] as? String
      }
      #expect(Set(events) == ["step", "remark", "block_began", "block_ended", "pass_began", "pass_ended"])
      #expect(try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])["layers"] != nil)
      let none = try await job.run(to: "none", "--progress", "none")
      #expect(none.status == 0 && none.errors.isEmpty)
      let plain = try await job.run(to: "plain", "--progress", "plain")
      for line in ["preflight", "compress", "evaluate"] { #expect(plain.errors.split(separator: "\n").contains { $0 == line }, "\(line)") }
      #expect(plain.errors.contains("[4/4] head ") && !plain.errors.contains("\u{1B}"))
    }
  }

  @Test func shortCalibrationDataIsRemarkedOn() async throws {
    try await Job.withTinyModel { job in
      let outcome = try await job.run(settings: ["calibration.sequences=50"], "--progress", "plain")
      #expect(outcome.status == 0 && outcome.errors.contains("holds 6 of 50 calibration sequences"))
      let remarks = try job.json("out", "report.json")["remarks"] as? [String]
      let few = "few calibration tokens: gptq fits linears of up to 256 inputs to 192 tokens, fewer than inputs"
      #expect(remarks?.count == 2 && remarks?.contains { $0.hasPrefix(few) && $0.hasSuffix("; 512 or more would do") } == true)
      #expect(outcome.output.contains(few) && outcome.output.contains("holds 6 of 50 calibration sequences"))
    }
  }

  @Test func oneWindowHasNoInterval() async throws {
    try await Job.withTinyModel { job in
      #expect(try await job.run(settings: ["evaluation.limit=20"]).status == 0)
      let figures = try job.json("out", "report.json").object("evaluation")
      for key in ["interval_before", "interval_after", "kl_standard_error"] { #expect(figures[key] == nil, "\(key)") }
      let scored = [
        "eval", job.model.path, "--tokens", "evaluation.npy", "--window", "32", "--progress", "none", "--reference", job.output().path,
      ]
      for (limit, isSample) in [("20", false), ("32", false), ("64", true)] {
        let json = try await Command.run(scored + ["--limit", limit, "--json"], in: job.working)
        let eval = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
        #expect((eval["perplexity_interval"] is NSNull) != isSample && (eval["kl_standard_error"] is NSNull) != isSample, "\(limit)")
        let text = try await Command.run(scored + ["--limit", limit], in: job.working)
        #expect(text.output.contains("95 %:") == isSample && text.output.contains(" ± ") == isSample, "\(text.output)")
      }
    }
  }

  @Test func inspectShowsOriginalAndResult() async throws {
    try await Job.withTinyModel { job in
      #expect(try await job.run().status == 0)
      let block = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128
      let parameters = 2 * (block + 2 * 128) + 2 * 64 * 128 + 128
      let compressed = 2 * (block / 2 + block / 128 * 2) + (parameters - 2 * block) * 2
      for (place, bytes) in [(job.model, parameters * 2), (job.output(), compressed)] {
        let outcome = try await Command.run(["inspect", place.path, "--json"])
        let shown = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
        #expect(shown["model_type"] as? String == "llama" && shown["tied"] as? Bool == false)
        #expect(shown.number("blocks") == 2 && shown.number("hidden_size") == 128 && shown.number("vocabulary_size") == 64)
        #expect(shown.list("roles").reduce(0) { $0 + $1.number("bytes") } == shown.number("bytes"))
        // Shapes that a format stores beside its codes are a few bytes more.
        #expect(shown.number("bytes") >= Double(bytes) && shown.number("bytes") < Double(bytes + 1024), "\(place.lastPathComponent)")
        #expect(shown.number("parameters") == Double(parameters), "\(place.lastPathComponent)")
        let text = try await Command.run(["inspect", place.path, "--tensors"])
        #expect(text.status == 0 && text.output.contains("model.layers.1.mlp.down_proj.weight"))
      }
    }
  }
}
