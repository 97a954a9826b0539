import CompressKit
import Foundation
import TestSupport
import Testing

/// Recipes of llm-compressor through the real command.
@Suite struct LLMCompressorRunTests {
  private static let settings = [
    "calibration={ tokens: calibration.npy, sequences: 6, length: 32 }", "evaluation={ tokens: evaluation.npy, window: 32 }",
  ]

  private static func theirs(_ modifier: String) -> String { "quant_stage:\n  quant_modifiers:\n    \(modifier)\n" }

  private static let w4a16 = theirs(
    "GPTQModifier: { scheme: W4A16, targets: Linear, ignore: [lm_head, 're:.*layers\\.0\\..*(gate|up)_proj$'], offload_hessians: true }")

  private static let w4a16OfOurs = """
    calibration: { tokens: calibration.npy, sequences: 6, length: 32 }
    passes:
      - gptq:
          bits: 4
          group_size: 128
          scales: minmax
          order: activation
          refit: false
          layers: { exclude: [lm_head, layers.0.mlp.gate_proj, layers.0.mlp.up_proj] }
    evaluation: { tokens: evaluation.npy, window: 32 }
    """

  private static let mixed = theirs(
    """
    QuantizationModifier:
          ignore: [lm_head]
          config_groups:
            a: { targets: [Linear], weights: { num_bits: 4, group_size: 64, symmetric: false } }
            b: { targets: ['re:.*down_proj$'], weights: { num_bits: 8, strategy: channel }, input_activations: { strategy: token, dynamic: true } }
    """)

  private static let mixedOfOurs = """
    passes:
      - rtn:
          bits: 4
          group_size: 64
          symmetric: false
          scales: minmax
          overrides: [{ layers: down_proj, bits: 8, group_size: channel, symmetric: true, activations: int8 }]
    evaluation: { tokens: evaluation.npy, window: 32 }
    """

  @Test(arguments: [(w4a16, w4a16OfOurs, "GPTQModifier: offload_hessians has no meaning here"), (mixed, mixedOfOurs, nil)])
  func theSameBytesAsByOurRecipe(theirs: String, ours: String, remark: String?) async throws {
    try await Job.withTinyModel(ours) { job in
      let own = try await job.run(to: "ours", "--progress", "none")
      #expect(own.status == 0, "\(own.errors)")
      let file = job.directory.appending(path: "theirs.yaml")
      try Data(theirs.utf8).write(to: file)
      let mapped = try await job.run(to: "theirs", recipe: file, settings: Self.settings, "--progress", "plain")
      #expect(mapped.status == 0, "\(mapped.errors)")
      for name in ["model.safetensors", "config.json"] { #expect(try job.bytes("ours", name) == job.bytes("theirs", name), "\(name)") }
      let all = try job.json("theirs", "report.json")["remarks"] as? [String] ?? []
      let remarks = all.filter { !$0.hasPrefix("few calibration tokens") }
      #expect(remarks.count == (remark == nil ? 0 : 1) && remarks.allSatisfy { $0.hasSuffix(remark!) }, "\(remarks)")
      if let remark { #expect(mapped.errors.contains("note: ") && mapped.errors.contains(remark)) }
      // What lies beside the weights is the mapped recipe, and does the same again.
      let stored = job.output("theirs").appending(path: "recipe.yaml")
      #expect(try await job.run(to: "again", recipe: stored, "--progress", "none").status == 0)
      #expect(try job.bytes("again", "model.safetensors") == job.bytes("theirs", "model.safetensors"))
    }
  }

  @Test func thePrintedRecipeIsOurs() async throws {
    try await Job.withTinyModel(Self.w4a16) { job in
      let printed = try await job.run(settings: Self.settings, "--print-recipe")
      #expect(printed.status == 0 && printed.errors.contains("note: ") && printed.output.hasPrefix("calibration:"))
      let file = job.directory.appending(path: "printed.yaml")
      try Data(printed.output.utf8).write(to: file)
      let again = try await job.run(recipe: file, "--print-recipe")
      #expect(again.output == printed.output && again.errors.isEmpty)
    }
  }

  @Test func mistakesHaveTheirPlace() async throws {
    try await Job.withTinyModel(Self.w4a16) { job in
      try await job.expectFailure(64, saying: "calibration data is needed", "--set calibration.text=FILE")
      func expect(_ modifier: String, _ words: String...) async throws {
        try Data(Self.theirs(modifier).utf8).write(to: job.recipe)
        for word in words { try await job.expectFailure(64, saying: word, settings: Self.settings) }
      }
      try await expect("GPTQModifier: { scheme: W4A16, targets: [model.layers.0.mlp.down_porj] }", "recipe.yaml:3:46: ", "down_proj\"?")
      try await expect(
        "GPTQModifier: { ignore: [lm_head], config_groups: { a: { targets: [Linear], weights: { num_bits: 4, group_size: 96 } } } }",
        "recipe.yaml:3:105: gptq.group_size: 96 does not divide")
      try await expect(
        "MagnitudePruningModifier: { sparsity: 0.5 }", "recipe.yaml:3:5: MagnitudePruningModifier: it prunes little by little")
      try Data("quant_modifiers: { GPTQModifier: {} }".utf8).write(to: job.recipe)
      try await job.expectFailure(64, saying: "recipe.yaml:1:1: quant_modifiers: llm-compressor reads only keys that end in `_stage`")
    }
  }
}
