import CompressKit
import Foundation
import TestSupport
import Testing

/// `compress quantize`: what a recipe of the same options would do.
@Suite struct QuantizeRunTests {
  @Test(arguments: [
    ("w4a16", "bits: 4, group_size: 128"), ("fp8_dynamic", "numbers: fp8, group_size: channel, activations: fp8"),
    ("W8A8", "bits: 8, group_size: channel, activations: int8"),
  ])
  func theSameBytesAsByARecipe(scheme: String, options: String) async throws {
    try await Job.withTinyModel("passes: [{ rtn: { \(options) } }]") { job in
      #expect(try await job.run(to: "recipe").status == 0)
      let outcome = try await Command.run(["quantize", job.model.path, "--scheme", scheme], in: job.results)
      #expect(outcome.status == 0, "\(outcome.errors)")
      // Named after the model and the scheme, in the working directory.
      let name = "model-\(scheme.lowercased())"
      #expect(try job.left() == [name, "recipe"].sorted())
      for file in [job.weights("recipe"), "config.json"] { #expect(try job.bytes("recipe", file) == job.bytes(name, file), "\(file)") }
      // What lies beside the weights is a recipe like any other.
      let stored = job.output(name).appending(path: "recipe.yaml")
      #expect(try await job.run(to: "again", recipe: stored).status == 0)
      #expect(try job.bytes("again", "recipe.yaml") == job.bytes(name, "recipe.yaml"))
    }
  }

  private func printed(_ arguments: String...) async throws -> Recipe {
    let outcome = try await Command.run(["quantize", "m"] + arguments + ["--print-recipe"])
    #expect(outcome.status == 0, "\(outcome.errors)")
    return try Recipe(yaml: outcome.output, file: "printed", passes: .standard)
  }

  @Test func optionsBecomeARecipe() async throws {
    func names(_ recipe: Recipe) -> [String] { recipe.passes.map { type(of: $0).name } }
    let plain = try await printed("--scheme", "w4a16")
    #expect(names(plain) == ["rtn"] && plain.calibration == nil && plain.evaluation == nil && plain.output.format == "compressed-tensors")
    let text = "a \"quoted\": text.txt"
    let fitted = try await printed("--scheme", "w3a16", "--text", text, "--sequences", "7", "--length", "99", "--seed", "5")
    #expect(names(fitted) == ["gptq"] && (fitted.passes[0] as? GPTQ)?.bits == 3 && fitted.seed == 5)
    #expect(fitted.calibration == CalibrationSource(text: TextSources(text), sequences: 7, length: 99))
    let scaled = try await printed(
      "--scheme", "w4a16", "--method", "awq", "--text", "t", "--evaluate", "e", "--window", "64", "--format", "mlx", "--set",
      "passes.rtn.group_size=64")
    #expect(names(scaled) == ["awq", "rtn"] && (scaled.passes[1] as? RoundToNearest)?.importance == .activations)
    #expect((scaled.passes[1] as? RoundToNearest)?.groupSize == 64 && scaled.output.format == "mlx")
    #expect(scaled.evaluation == EvaluationSource(text: TextSources("e"), window: 64))
  }

  @Test func aDryRunWritesNothing() async throws {
    try await Job.withTinyModel { job in
      let outcome = try await Command.run(["quantize", job.model.path, "--scheme", "w4a16", "--dry-run"], in: job.results)
      #expect(outcome.status == 0 && outcome.output.contains("int4 g128") && outcome.output.contains("calibration  not needed"))
      #expect(try job.left().isEmpty)
    }
  }

  @Test func whatIsMissingIsNamed() async throws {
    let missing = try await Command.run(["quantize", "m", "--scheme", "nvfp4"])
    #expect(missing.status == 64 && missing.errors.contains("--text is needed"), "\(missing.errors)")
    let unknown = try await Command.run(["quantize", "m", "--scheme", "fp8_dynamc"])
    #expect(unknown.error?.hasSuffix("did you mean \"fp8_dynamic\"?") == true, "\(unknown.errors)")
  }
}
