import CompressKit
import Foundation
import TestSupport
import Testing

/// What goes wrong in a run: one line, the right code, nothing left behind.
@Suite struct FailureTests {
  @Test func aTruncatedShard() async throws {
    try await Job.withTinyModel { job in
      let file = job.model.appending(path: "model.safetensors")
      let whole = try Data(contentsOf: file)
      try whole.dropLast(10).write(to: file)
      try await job.expectFailure(65, saying: "model.safetensors", "truncated", "hint: ")
      try whole.prefix(5).write(to: file)
      try await job.expectFailure(65, saying: "model.safetensors")
    }
  }

  @Test(arguments: ["model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.v_proj.weight", "lm_head.weight", "model.norm.weight"])
  func aNaNInAWeight(name: String) async throws {
    try await Job.withTinyModel { job in
      let file = job.model.appending(path: "model.safetensors")
      var data = try Data(contentsOf: file)
      let length = data.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
      let header = try #require(try JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any])
      let start = 8 + length + (try #require(header.object(name)["data_offsets"] as? [Int]))[0]
      data.replaceSubrange(start..<start + 2, with: [0xC0, 0x7F])
      try data.write(to: file)
      try await job.expectFailure(65, saying: name, "NaN")
    }
  }

  @Test func mistakesInTheRecipe() async throws {
    try await Job.withTinyModel { job in
      try Data(Job.yaml.replacing("gptq", with: "gtpq").utf8).write(to: job.recipe)
      try await job.expectFailure(64, saying: "recipe.yaml:3:5: unknown pass \"gtpq\"", "did you mean \"gptq\"?")
      try Data(Job.yaml.replacing("group_size", with: "groupsize").utf8).write(to: job.recipe)
      try await job.expectFailure(64, saying: "recipe.yaml:3:22: unknown key \"groupsize\"", "did you mean \"group_size\"?")
      try Data("passes: [\n".utf8).write(to: job.recipe)
      try await job.expectFailure(64, saying: "not valid YAML")
      try Data(Job.yaml.utf8).write(to: job.recipe)
      try await job.expectFailure(
        64, saying: "gptq", "\"down_porj\" matches no linear", "did you mean \"down_proj\"?",
        settings: ["passes.gptq.layers.exclude=[down_porj]"])
      try await job.expectFailure(64, saying: "96 does not divide the 128 columns", settings: ["passes.gptq.group_size=96"])
      try await job.expectFailure(64, saying: "gptq.bits", settings: ["passes.gptq.bits=7"])
      try await job.expectFailure(64, saying: "key=value is needed", settings: ["nonsense"])
      try await job.expectFailure(64, saying: "output.format", "compressed-tensors", settings: ["output.format=gguff"])
      try await job.expectFailure(64, saying: "output.max_shard_size", settings: ["output.max_shard_size=many"])
      try await job.expectFailure(64, saying: "calibration data is needed", "hint: ", settings: ["calibration="])
      try await job.expectFailure(64, saying: "--memory-limit", with: ["--memory-limit", "lots"])
      try await job.expectFailure(64, saying: "at least", "--memory-limit", with: ["--memory-limit", "1MB"])
      let model = job.model.path
      for arguments in [
        ["eval", model, "--tokens", "evaluation.npy", "--window", "32"], ["convert", model, "--to", "npz", "--output", "results/x"],
        ["calibrate", model, "--tokens", "calibration.npy", "--length", "32", "--output", "results/x"],
      ] {
        let outcome = try await Command.run(arguments + ["--memory-limit", "1MB", "--progress", "none"], in: job.working)
        #expect(outcome.status == 64 && outcome.error?.contains("at least") == true, "\(arguments[0]): \(outcome.errors)")
      }
      #expect(try job.left().isEmpty)
    }
  }

  @Test func missingFiles() async throws {
    try await Job.withTinyModel { job in
      var other = job
      other.model = job.directory.appending(path: "absent")
      try await other.expectFailure(66, saying: "absent: no such file")
      try await job.expectFailure(66, saying: "absent.npy", "no such file", settings: ["calibration.tokens=absent.npy"])
      try await job.expectFailure(66, saying: "absent.npy", "no such file", settings: ["evaluation.tokens=absent.npy"])
      try await job.expectFailure(66, saying: "absent.yaml", recipe: job.directory.appending(path: "absent.yaml"))
    }
  }

  @Test func anExistingOutput() async throws {
    try await Job.withTinyModel { job in
      let own = job.output().appending(path: "precious")
      try FileManager.default.createDirectory(at: job.output(), withIntermediateDirectories: true)
      try Data("kept".utf8).write(to: own)
      try await job.expectFailure(64, saying: "exists already", "--overwrite", leaving: ["out"])
      try await job.expectFailure(64, saying: "this program did not make it", "hint: ", with: ["--overwrite"], leaving: ["out"])
      #expect(try Data(contentsOf: own) == Data("kept".utf8))
      try FileManager.default.removeItem(at: job.output())
      #expect(try await job.run("--progress", "none").status == 0)
      let old = try job.bytes("out", "recipe.yaml")
      try await job.expectFailure(64, settings: ["passes.gptq.group_size=96"], with: ["--overwrite"], leaving: ["out"])
      #expect(try job.bytes("out", "recipe.yaml") == old, "a failed run replaces nothing")
      let outcome = try await job.run(settings: ["passes.gptq.bits=8"], "--overwrite", "--progress", "none")
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(try job.left() == ["out"])
      #expect(try job.bytes("out", "recipe.yaml") != old)
    }
  }

  /// In the first sequence, which the rehearsal sees, and in the last, which it does not.
  @Test(arguments: [0, 191])
  func calibrationTokensOutOfTheVocabulary(position: Int) async throws {
    try await Job.withTinyModel { job in
      var tokens = TinyModel.sequences(6, length: 32).flatMap { $0 }
      tokens[position] = 1000
      try TinyModel.write(tokens: tokens, to: job.directory.appending(path: "calibration.npy"))
      try await job.expectFailure(65, saying: "token id 1000 is outside the model's vocabulary of 64")
    }
  }

  /// What the evaluation will stumble over is found before anything is written.
  @Test func evaluationTokensOutOfTheVocabulary() async throws {
    try await Job.withTinyModel { job in
      var tokens = TinyModel.sequences(6, length: 32).flatMap { $0 }
      tokens[100] = 64
      try TinyModel.write(tokens: tokens, to: job.directory.appending(path: "evaluation.npy"))
      try await job.expectFailure(65, saying: "token id 64 is outside the model's vocabulary of 64")
    }
  }

  @Test func evaluationTokensThatCannotBeScored() async throws {
    try await Job.withTinyModel { job in
      try TinyModel.write(tokens: [5], to: job.directory.appending(path: "evaluation.npy"))
      try await job.expectFailure(65, saying: "1 tokens cannot be scored")
    }
  }

  @Test func calibrationTokensThatFillNoSequence() async throws {
    try await Job.withTinyModel { job in
      try await job.expectFailure(
        65, saying: "its 192 tokens do not fill one calibration sequence of 200", settings: ["calibration.length=200"])
      try Data("no array".utf8).write(to: job.directory.appending(path: "calibration.npy"))
      try await job.expectFailure(65, saying: "not a NumPy .npy file")
    }
  }

  @Test func aModelOfAnotherKind() async throws {
    try await Job.withTinyModel { job in
      let file = job.model.appending(path: "config.json")
      try Data(Job.config.replacing("\"llama\"", with: "\"mamba\"").utf8).write(to: file)
      try await job.expectFailure(65, saying: "\"mamba\" is not supported", "llama")
      try Data(Job.config.replacing("256", with: "512").utf8).write(to: file)
      try await job.expectFailure(65, saying: "has shape [", "config.json implies")
      try Data("{".utf8).write(to: file)
      try await job.expectFailure(65, saying: "config.json")
    }
  }

  @Test func aFallbackWhereItIsNotWanted() async throws {
    try await Job.withTinyModel { job in
      let settings = ["passes.gptq.layers.include=[embed_tokens, o_proj]"]
      try await job.expectFailure(65, saying: "model.embed_tokens", "--strict", settings: settings, with: ["--strict"])
      let outcome = try await job.run(settings: settings, "--progress", "none")
      #expect(outcome.status == 0 && outcome.output.contains("1 FALLBACKS:"), "\(outcome.errors)")
      #expect(try job.json("out", "report.json").number("fallback_count") == 1)
    }
  }

  @Test func anOutputThatCannotBeMade() async throws {
    try await Job.withTinyModel { job in
      var other = job
      other.directory = job.recipe  // A file, so nothing can be made beneath it.
      let outcome = try await other.run("--progress", "none")
      #expect(outcome.status == 74, "\(outcome.errors)")
      #expect(outcome.errors.hasPrefix("error: "))
    }
  }
}
