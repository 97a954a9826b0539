import CompressKit
import TestSupport
import Testing

/// Which linears get which scheme.
@Suite struct LLMCompressorTargetTests {
  private static let config = TinyModel.config.replacing("\"hidden_size\":32", with: "\"hidden_size\":128").replacing(
    "\"intermediate_size\":64", with: "\"intermediate_size\":256")

  /// The words for what becomes of every linear.
  private func schemes(_ modifiers: String, tied: Bool = false) throws -> [String: String] {
    let config = tied ? Self.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true") : Self.config
    let recipe = try Dialect.read(Dialect.stage(modifiers))
    let linears = try Pipeline(recipe.passes).plan(for: TinyModel.model(config, dtype: .bfloat16))
    return Dictionary(uniqueKeysWithValues: linears.map { ($0.name.replacing("model.", with: ""), $0.scheme) })
  }

  private func groups(_ groups: String..., ignore: String = "[lm_head]") -> String {
    "QuantizationModifier:\n  ignore: \(ignore)\n  config_groups:\n" + groups.map { "    \($0)\n" }.joined()
  }

  @Test func theClassLinearHoldsTheHead() throws {
    let all = try schemes("QuantizationModifier: { scheme: W8A16, targets: Linear }")
    #expect(all["lm_head"] == "int8 g128" && all["layers.1.mlp.up_proj"] == "int8 g128" && all["embed_tokens"] == "BF16")
    let without = try schemes("QuantizationModifier: { scheme: W8A16, ignore: [lm_head] }")
    #expect(without["lm_head"] == "BF16" && without["layers.1.mlp.up_proj"] == "int8 g128")
    let expression = try schemes("QuantizationModifier: { scheme: W8A16, ignore: ['re:.*lm_head'] }")
    #expect(expression["lm_head"] == "BF16")
  }

  @Test func theEndsMayBeNamed() throws {
    for target in ["lm_head", "'re:.*lm_head'", "'re:lm_head$'"] {
      let plan = try schemes("QuantizationModifier: { scheme: W8A16, targets: [\(target)] }")
      #expect(plan["lm_head"] == "int8 g128" && plan["layers.0.mlp.up_proj"] == "BF16")
    }
    for target in ["Embedding", "model.embed_tokens", "'re:.*embed_tokens$'"] {
      let plan = try schemes("QuantizationModifier: { scheme: W8A16, targets: [\(target)] }")
      #expect(plan["embed_tokens"] == "int8 g128" && plan["lm_head"] == "BF16")
    }
  }

  @Test(arguments: ["lm_head", "'re:.*lm_head'", "'re:lm_head$'"])
  func aTiedModelHasNoHeadToIgnore(entry: String) throws {
    let plan = try schemes("QuantizationModifier: { scheme: W8A16, ignore: [\(entry)] }", tied: true)
    #expect(plan["lm_head"] == nil && plan["layers.1.mlp.up_proj"] == "int8 g128")
  }

  @Test func aTiedModelHasNoHeadToQuantize() throws {
    let error = #expect(throws: PipelineError.self) { try schemes("QuantizationModifier: { scheme: W8A16 }", tied: true) }
    #expect("\(try #require(error?.cause))".contains("it is tied to the embedding"))
  }

  @Test func aNameWinsOverAnExpressionAndThatOverAClass() throws {
    let plan = try schemes(
      groups(
        "a: { targets: [Linear], weights: { num_bits: 4, group_size: 128 } }",
        "b: { targets: ['model.layers.0.mlp.down_proj'], weights: { num_bits: 8, group_size: 64 } }",
        "c: { targets: ['re:.*down_proj$', 're:.*\\.q_proj$'], weights: { num_bits: 3, strategy: channel, symmetric: false } }"))
    #expect(plan["layers.0.mlp.down_proj"] == "int8 g64" && plan["layers.1.mlp.down_proj"] == "int3 channel asym")
    #expect(plan["layers.0.self_attn.q_proj"] == "int3 channel asym" && plan["layers.0.mlp.up_proj"] == "int4 g128")
    #expect(plan["lm_head"] == "BF16")
  }

  /// The order of groups does not count: expressions go by the alphabet.
  @Test func amongExpressionsTheFirstInTheAlphabetWins() throws {
    let (a, b) = (
      "a: { targets: ['re:.*a.*'], weights: { num_bits: 4, group_size: 64 } }",
      "b: { targets: ['re:.*mlp.*'], weights: { num_bits: 8, group_size: 64 } }"
    )
    for order in [groups(a, b, ignore: "[lm_head, model.embed_tokens]"), groups(b, a, ignore: "[lm_head, model.embed_tokens]")] {
      #expect(try schemes(order)["layers.0.mlp.up_proj"] == "int4 g64")
    }
  }

  @Test func schemesOfOtherNumbersKeepNothingOfTheBase() throws {
    let plan = try schemes(
      groups(
        "a: { targets: [Linear], weights: { num_bits: 3, group_size: 64, symmetric: false } }",
        "b: { targets: ['re:.*q_proj'], weights: { num_bits: 8, type: float, strategy: channel } }",
        "c: { targets: ['re:.*o_proj'], weights: { num_bits: 4, type: float, strategy: tensor_group, group_size: 16 } }",
        "d: { targets: ['re:.*up_proj'], weights: { num_bits: 8, type: float, strategy: block, block_structure: [64, 32] } }",
        "W8A8: ['re:.*down_proj']"))
    #expect(plan["layers.0.self_attn.q_proj"] == "fp8 channel" && plan["layers.0.self_attn.o_proj"] == "nvfp4")
    #expect(plan["layers.0.mlp.up_proj"] == "fp8 block 64x32" && plan["layers.0.mlp.down_proj"] == "int8 channel")
    #expect(plan["layers.0.mlp.gate_proj"] == "int3 g64 asym")
  }

  @Test func aMapOfPresets() throws {
    let plan = try schemes("QuantizationModifier: { scheme: { w4a16: [Linear], FP8_dynamic: 're:.*down_proj$' }, ignore: [lm_head] }")
    #expect(plan["layers.0.mlp.up_proj"] == "int4 g128" && plan["layers.0.mlp.down_proj"] == "fp8 channel")
  }

  @Test func unquantized() throws {
    let spared = try schemes("QuantizationModifier: { scheme: { W4A16: [Linear], UNQUANTIZED: ['re:.*down_proj$'] }, ignore: [lm_head] }")
    #expect(spared["layers.0.mlp.up_proj"] == "int4 g128" && spared["layers.0.mlp.down_proj"] == "BF16")
    let rest = try schemes("QuantizationModifier: { scheme: { W4A16: ['re:.*down_proj$'], unquantized: [Linear] } }")
    #expect(rest["layers.0.mlp.up_proj"] == "BF16" && rest["layers.0.mlp.down_proj"] == "int4 g128" && rest["lm_head"] == "BF16")
    #expect(throws: RecipeError.self) { try schemes("QuantizationModifier: { scheme: UNQUANTIZED }") }
    let between = #expect(throws: RecipeError.self) {
      try schemes(
        "QuantizationModifier: { scheme: { W4A16: [model.layers.0.mlp.down_proj], UNQUANTIZED: ['re:.*down_proj$'], W8A16: [Linear] } }")
    }
    #expect(between?.description.contains("cannot be said here") == true)
  }

  /// `re:` is anchored at the start of the whole name and open at its end; a name is all of it.
  @Test func anchors() throws {
    let open = try schemes("QuantizationModifier: { scheme: W4A16, targets: ['re:model.layers.0'] }")
    #expect(open["layers.0.mlp.up_proj"] == "int4 g128" && open["layers.1.mlp.up_proj"] == "BF16")
    #expect(throws: PipelineError.self) { try schemes("QuantizationModifier: { scheme: W4A16, targets: ['re:q_proj'] }") }
    // A pattern of ours would match the end of names; a name of theirs does not.
    #expect(throws: PipelineError.self) { try schemes("QuantizationModifier: { scheme: W4A16, targets: [mlp.down_proj] }") }
    // What is to be ignored may be absent: their recipes name what other models have.
    let absent = try schemes("QuantizationModifier: { scheme: W4A16, ignore: [lm_head, 're:.*mlp.gate$'] }")
    #expect(absent["layers.0.mlp.gate_proj"] == "int4 g128")
    let prefixes = try schemes("QuantizationModifier: { scheme: W4A16, ignore: [lm_head, 're:.*mlp.gate'] }")
    #expect(prefixes["layers.0.mlp.gate_proj"] == "BF16" && prefixes["layers.0.mlp.up_proj"] == "int4 g128")
  }

  // MARK: Presets

  private static let integers =
    (2...8).map { ("W\($0)A16", "numbers: int, bits: \($0), group_size: 128") }
    + (2...7).map { ("W\($0)A8", "bits: \($0), group_size: 128, activations: int8") }
    + (2...4).map { ("W\($0)A4", "bits: \($0), group_size: 128, activations: int4") }
  static let presets =
    integers + [
      ("W8A8", "bits: 8, group_size: channel, activations: int8"), ("INT8", "bits: 8, group_size: channel, activations: int8"),
      ("W4A16_ASYM", "bits: 4, group_size: 128, symmetric: false"), ("W4AFP8", "bits: 4, group_size: 128, activations: fp8"),
      ("FP8", "numbers: fp8, group_size: tensor, activations: fp8_static"),
      ("FP8_DYNAMIC", "numbers: fp8, group_size: channel, activations: fp8"),
      ("FP8_BLOCK", "numbers: fp8, group_size: 128x128, activations: fp8_g128"), ("NVFP4A16", "numbers: nvfp4"),
      ("NVFP4", "numbers: nvfp4, activations: nvfp4"), ("MXFP4A16", "numbers: mxfp4"), ("MXFP4", "numbers: mxfp4, activations: mxfp4"),
      ("MXFP8A16", "numbers: mxfp8"), ("MXFP8", "numbers: mxfp8, activations: mxfp8"),
    ]

  @Test func noPresetIsMissing() { #expect(Set(Self.presets.map(\.0)) == Set(QuantizationPreset.all.keys)) }

  @Test(arguments: presets)
  func everyPreset(name: String, options: String) throws {
    let theirs = "QuantizationModifier:\n  scheme: \(name.lowercased())\n  ignore: [lm_head]"
    guard !name.hasPrefix("W7") else {
      let error = #expect(throws: RecipeError.self) { try Dialect.read(Dialect.stage(theirs)) }
      #expect(error?.problem.key == "rtn.bits" && error?.line == 4 && error?.column == 15)
      return
    }
    let ours = "passes:\n- rtn: { \(options), scales: minmax, layers: { exclude: [lm_head] } }"
    #expect(try Dialect.read(Dialect.stage(theirs)).yaml == Dialect.read(ours).yaml)
  }
}
