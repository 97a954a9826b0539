import CompressKit
import Testing

/// What llm-compressor would drop in silence, and what cannot be carried over: each with its place.
@Suite struct LLMCompressorErrorTests {
  private func expect(
    _ yaml: String, at line: Int, _ column: Int, key: String, saying words: String..., location: SourceLocation = #_sourceLocation
  ) throws {
    let error = try #require(
      #expect(throws: RecipeError.self, sourceLocation: location) { _ = try Dialect.read(yaml) }, sourceLocation: location)
    #expect([error.line, error.column] == [line, column], "\(error)", sourceLocation: location)
    #expect(error.problem.key == key, "\(error)", sourceLocation: location)
    #expect(error.description.hasPrefix("r.yaml:\(line):\(column): ") && !error.description.contains("\n"), sourceLocation: location)
    for word in words { #expect(error.description.contains(word), "\(error) lacks \(word)", sourceLocation: location) }
  }

  // MARK: Silent traps

  @Test func flatFiles() throws {
    try expect(
      "quant_modifiers:\n  GPTQModifier: { scheme: W4A16 }\n", at: 1, 1, key: "quant_modifiers", saying: "empty recipe", "`quant_stage:`",
      "`quant_modifiers:`")
    try expect("modifiers:\n  GPTQModifier: {}\n", at: 1, 1, key: "modifiers", saying: "empty recipe", "`quant_modifiers:`")
    try expect("# x\nGPTQModifier: { scheme: W4A16 }\n", at: 2, 1, key: "GPTQModifier", saying: "do nothing", "`quant_stage:`")
  }

  @Test func groupsThatAreDropped() throws {
    try expect("a_stage:\n  modifiers:\n    GPTQModifier: {}\n", at: 2, 3, key: "modifiers", saying: "without a word", "quant_modifiers")
    try expect("a_stage:\n  GPTQModifier: {}\n", at: 2, 3, key: "GPTQModifier", saying: "`quant_modifiers:` above it")
    try expect("a_stage:\n  run_type: oneshot\n  a_modifiers:\n    GPTQModifier: {}\n", at: 2, 3, key: "run_type", saying: "remove it")
    try expect("a_stage:\n  quant: { GPTQModifier: {} }\n", at: 2, 3, key: "quant", saying: "quant_modifiers")
    try expect("a_stage:\n  a_modifiers: [GPTQModifier]\n", at: 2, 3, key: "a_modifiers", saying: "not a mapping")
    try expect(
      "a_stage:\n  a_modifiers:\n    - !GPTQModifier\n      scheme: W4A16\n", at: 2, 3, key: "a_modifiers", saying: "not a mapping")
  }

  @Test func stagesThatAreDropped() throws {
    let modifiers = "  a_modifiers: { GPTQModifier: { scheme: W4A16 } }\n"
    try expect("a_stage_0:\n\(modifiers)", at: 1, 1, key: "a_stage_0", saying: "loads nothing", "rename it a_stage")
    try expect("a_stage:\n\(modifiers)x: 3\n", at: 3, 1, key: "x", saying: "without a word", "x_stage")
    try expect("args: { a: 1 }\na_stage:\n\(modifiers)", at: 1, 1, key: "args", saying: "never substitutes")
    try expect("a_stage:\n\(modifiers)calibration: { text: c }\n", at: 3, 1, key: "calibration", saying: "--set calibration")
    try expect("a_stage: [1]\n", at: 1, 1, key: "a_stage", saying: "not a mapping")
    try expect("a_stage:\n", at: 1, 1, key: "a_stage", saying: "not a mapping")
    try expect("a_stage: {}\n", at: 1, 1, key: "a_stage", saying: "no modifier")
    try expect("a_stage: { b_modifiers: {} }\n", at: 1, 1, key: "a_stage", saying: "no modifier")
  }

  @Test func modifiersWithNothingAfterThem() throws {
    try expect(Dialect.stage("SmoothQuantModifier:"), at: 3, 5, key: "SmoothQuantModifier", saying: "fails", "`SmoothQuantModifier: {}`")
    try expect(Dialect.stage("SmoothQuantModifier: 3"), at: 3, 5, key: "SmoothQuantModifier", saying: "a mapping is needed")
  }

  @Test func whatQuantizesNothing() throws {
    try expect(Dialect.stage("GPTQModifier: {}"), at: 3, 5, key: "GPTQModifier", saying: "there is no scheme", "quantize nothing")
    try expect(Dialect.stage("GPTQModifier: { targets: [Linear] }"), at: 3, 21, key: "GPTQModifier.targets", saying: "quantize nothing")
    try expect(Dialect.stage("QuantizationModifier: {}"), at: 3, 5, key: "QuantizationModifier", saying: "quantizes nothing")
    try expect(Dialect.stage("AWQModifier: {}"), at: 3, 5, key: "AWQModifier", saying: "must follow")
    try expect(
      Dialect.stage("QuantizationModifier: { scheme: W4A16 }\nAWQModifier: {}"), at: 4, 5, key: "AWQModifier", saying: "must follow")
    try expect(
      Dialect.stage("QuantizationModifier:\n  targets: [Embedding]\n  config_groups: { W4A16: [Linear] }"), at: 4, 7,
      key: "QuantizationModifier.targets", saying: "drops it here")
    try expect(
      Dialect.stage("QuantizationModifier: { scheme: W4A16, ignore: [Linear] }"), at: 3, 53, key: "QuantizationModifier.ignore",
      saying: "every linear is ignored")
  }

  @Test func namesThatWouldMatchNothing() throws {
    func with(_ targets: String) -> String { Dialect.stage("QuantizationModifier:\n  scheme: W4A16\n  targets: [\(targets)]") }
    try expect(with("Linear, down_proj"), at: 5, 25, key: "QuantizationModifier.targets", saying: "\"down_proj\"", "'re:.*down_proj$'")
    try expect(with("'*.down_proj'"), at: 5, 17, key: "QuantizationModifier.targets", saying: "taken literally")
    try expect(with("'re:('"), at: 5, 17, key: "QuantizationModifier.targets", saying: "not a regular expression")
    try expect(with("'re:.*'"), at: 5, 17, key: "QuantizationModifier.targets", saying: "also fits lm_head")
    try expect(with("Linear, Linear"), at: 5, 25, key: "QuantizationModifier.targets", saying: "twice")
    try expect(with("3"), at: 5, 17, key: "QuantizationModifier.targets", saying: "a name is needed")
    try expect(
      Dialect.stage("QuantizationModifier:\n  scheme: W4A16\n  ignore: [lm_head, LlamaRMSNorm]"), at: 5, 25,
      key: "QuantizationModifier.ignore", saying: "\"LlamaRMSNorm\"", "leave it out")
    try expect(
      Dialect.stage("QuantizationModifier: { scheme: W4A16 }\nGPTQModifier: { scheme: W8A8, targets: [Linear] }"), at: 4, 45,
      key: "GPTQModifier.targets", saying: "by QuantizationModifier already")
  }

  // MARK: What is not done here

  @Test(arguments: [
    "AutoRoundModifier", "QuIPModifier", "MagnitudePruningModifier", "ConstantPruningModifier", "REAPPruningModifier",
  ])
  func modifiersWithoutAPass(name: String) throws {
    try expect(Dialect.stage("SmoothQuantModifier: {}\n\(name): { sparsity: 0.5 }"), at: 4, 5, key: name, saying: "no")
  }

  @Test func unknownModifiers() throws {
    try expect(
      Dialect.stage("GTPQModifier: { scheme: W4A16 }"), at: 3, 5, key: "GTPQModifier", saying: "did you mean \"GPTQModifier\"?")
    try expect(Dialect.stage("GPTQModifier: { scheme: W4A16, dampening: 1 }"), at: 3, 36, key: "dampening", saying: "dampening_frac")
    try expect(Dialect.stage("SmoothQuantModifier: { scheme: W4A16 }"), at: 3, 28, key: "scheme", saying: "smoothing_strength")
  }

  @Test func aPassThatIsNotInTheCatalog() throws {
    let yaml = Dialect.stage("SmoothQuantModifier: {}")
    let error = #expect(throws: RecipeError.self) { try Recipe(yaml: yaml, file: "r.yaml", passes: PassCatalog([GPTQ.self])) }
    #expect(error?.line == 3 && error?.description.contains("\"smoothquant\", and there is no such pass here; passes: gptq") == true)
  }

  @Test(arguments: [
    ("GPTQModifier: { scheme: W4A16, actorder: group }", 36, "actorder", "weight_g_idx"),
    ("GPTQModifier: { scheme: W4A16, actorder: 3 }", 36, "GPTQModifier.actorder", "a word is needed"),
    ("GPTQModifier: { scheme: W4A16, actorder: stat }", 36, "GPTQModifier.actorder", "did you mean \"static\"?"),
    ("GPTQModifier: { scheme: W4A16, dampening_frac: much }", 36, "gptq.damping", "a number is needed"),
    ("GPTQModifier: { scheme: W4A16, block_size: 0 }", 36, "gptq.block_size", "a positive number"),
    ("GPTQModifier: { scheme: W4A61 }", 29, "GPTQModifier.scheme", "did you mean \"W4A16\"?"),
    ("GPTQModifier: { scheme: W4A16, config_groups: {} }", 36, "GPTQModifier.config_groups", "exclude each other"),
    ("GPTQModifier: { scheme: W4A16, bypass_divisibility_checks: true }", 36, "GPTQModifier.bypass_divisibility_checks", "must divide"),
    ("GPTQModifier: { scheme: W4A16, output_observer: mse }", 36, "GPTQModifier.output_observer", "outputs"),
    ("GPTQModifier: { scheme: W4A16, weight_observer: mce }", 36, "observer", "did you mean \"mse\"?"),
    ("GPTQModifier: { scheme: W8A8, input_observer: mse }", 35, "GPTQModifier.input_observer", "extremes"),
    ("GPTQModifier: { scheme: W4A16, observer: { weights: mse }, weight_observer: mse }", 36, "GPTQModifier.observer", "exclude"),
    ("GPTQModifier: { scheme: W4A16, ignore: 3 }", 36, "GPTQModifier.ignore", "a list of names"),
    ("AWQModifier: { mappings: [{ smooth_layer: x }] }", 20, "AWQModifier.mappings", "follows from the model"),
    ("AWQModifier: { ignore: [lm_head] }", 20, "AWQModifier.ignore", "after this one"),
    ("AWQModifier: { duo_scaling: all, scheme: W4A16 }", 20, "AWQModifier.duo_scaling", "both"),
    ("AWQModifier: { n_grid: many, scheme: W4A16 }", 20, "awq.grid", "a whole number is needed"),
    ("SmoothQuantModifier: { mappings: [[['re:.*q_proj'], 're:.*norm']] }", 28, "SmoothQuantModifier.mappings", "follows from the model"),
    ("SmoothQuantModifier: { algorithm: log_equalization }", 28, "SmoothQuantModifier.algorithm", "smoothquant"),
    ("SmoothQuantModifier: { num_calibration_steps: 3 }", 28, "SmoothQuantModifier.num_calibration_steps", "calibration.sequences"),
    ("SmoothQuantModifier: { smoothing_strength: high }", 28, "smoothquant.strength", "auto"),
    ("SpinQuantModifier: { rotations: [R1, R3] }", 42, "SpinQuantModifier.rotations", "while the model runs"),
    ("SpinQuantModifier: { rotations: [R9] }", 38, "SpinQuantModifier.rotations", "R1 and R2"),
    ("SpinQuantModifier: { learnable: true }", 26, "SpinQuantModifier.learnable", "false"),
    ("SpinQuantModifier: { transform_block_size: 64 }", 26, "SpinQuantModifier.transform_block_size", "full size"),
    ("SpinQuantModifier: { transform_config: {} }", 26, "SpinQuantModifier.transform_config", "rotations"),
    ("SpinQuantModifier: { precision: float32 }", 26, "SpinQuantModifier.precision", "double"),
    ("QuantizationModifier: { kv_cache_scheme: { num_bits: 4 } }", 48, "QuantizationModifier.kv_cache_scheme.num_bits", "8 bits"),
    ("QuantizationModifier: { kv_cache_scheme: { dynamic: true } }", 48, "QuantizationModifier.kv_cache_scheme.dynamic", "fixed"),
    ("QuantizationModifier: { kv_cache_scheme: { strategy: attn_head } }", 29, "QuantizationModifier.kv_cache_scheme", "tensor"),
    ("QuantizationModifier: { kv_cache_scheme: { symmetric: false } }", 48, "QuantizationModifier.kv_cache_scheme.symmetric", "symmetric"),
  ])
  func argumentsThatCannotBeCarriedOver(modifier: String, column: Int, key: String, words: String) throws {
    try expect(Dialect.stage(modifier), at: 3, column, key: key, saying: words)
  }

  @Test(arguments: [
    ("weights: { num_bits: 9, group_size: 128 }", 18, "rtn.bits", "are possible"),
    ("weights: { group_size: 128, strategy: channel }", 18, "group_size", "strategy group"),
    ("weights: { strategy: group }", 18, "strategy", "a group size is needed"),
    ("weights: { strategy: token }", 18, "strategy", "by token"),
    ("weights: { strategy: block }", 18, "strategy", "block_structure"),
    ("weights: { strategy: block, block_structure: 128 }", 35, "block_structure", "rows and columns"),
    ("weights: { block_structure: [128, 128] }", 18, "block_structure", "strategy block"),
    ("weights: { dynamic: true }", 18, "dynamic", "once"), ("weights: { dynamic: often }", 18, "dynamic", "local is needed"),
    ("weights: { type: uint }", 18, "type", "int"), ("weights: { type: float, symmetric: false }", 31, "symmetric", "no zero points"),
    ("weights: { type: float, num_bits: 6 }", 31, "num_bits", "4 or 8"),
    ("weights: { type: float, num_bits: 4, strategy: tensor_group, group_size: 32 }", 68, "group_size", "16"),
    ("weights: { type: float, num_bits: 4, group_size: 16 }", 44, "group_size", "32"),
    ("weights: { type: float, num_bits: 4 }", 31, "num_bits", "by tensor"),
    ("weights: { scale_dtype: float64 }", 18, "scale_dtype", "checkpoint's type"),
    ("weights: { symmetric: false, zp_dtype: float8_e4m3fn }", 36, "zp_dtype", "integers"),
    ("weights: { observer_kwargs: { grid: 10 } }", 18, "observer_kwargs", "no such parameters"),
    ("weights: { observer: median }", 18, "observer", "not known"), ("weights: { bits: 4 }", 18, "bits", "num_bits"),
    ("weights: {}, format: pack-quantized", 20, "format", "leave it out"),
    ("weights: {}, output_activations: {}", 20, "output_activations", "outputs"),
    ("input_activations: {}", 7, "input_activations", "together with weights"),
    ("weights: {}, input_activations: { symmetric: false }", 41, "symmetric", "symmetrically"),
    ("weights: {}, input_activations: { strategy: token }", 20, "input_activations", "static"),
    ("weights: {}, input_activations: { strategy: tensor, dynamic: true }", 20, "input_activations", "dynamic"),
    ("weights: {}, input_activations: { type: float, strategy: group, group_size: 64, dynamic: true }", 71, "group_size", "128"),
    ("weights: {}, input_activations: { actorder: weight }", 41, "actorder", "no order"),
    ("weights: {}, input_activations: { observer: mse }", 41, "observer", "extremes"),
  ])
  func schemesThatCannotBeCarriedOver(scheme: String, column: Int, key: String, words: String) throws {
    let yaml = Dialect.stage("QuantizationModifier:\n  config_groups:\n    g:\n     {\(scheme), targets: [Linear]}")
    let error = try #require(#expect(throws: RecipeError.self) { _ = try Dialect.read(yaml) })
    // Column 11 begins the scheme; the table counts from 7.
    #expect([error.line, error.column] == [6, column + 4], "\(error)")
    #expect(error.problem.key.hasSuffix(key) && error.description.contains(words), "\(error)")
  }

  @Test func schemesOfOnePassAgree() throws {
    func two(_ first: String, _ second: String) -> String {
      Dialect.stage(
        "GPTQModifier:\n  config_groups:\n    a: { targets: [Linear], weights: { \(first) } }\n    b: { targets: [lm_head], weights: { \(second) } }"
      )
    }
    try expect(two("observer: mse", ""), at: 6, 9, key: "observer", saying: "one way")
    try expect(two("observer: mse", "observer: minmax"), at: 6, 45, key: "observer", saying: "one way")
    try expect(
      Dialect.stage("QuantizationModifier:\n  config_groups: { g: { weights: {} } }"), at: 4, 24,
      key: "QuantizationModifier.config_groups.g", saying: "targets")
    try expect(
      Dialect.stage("QuantizationModifier:\n  config_groups: {}"), at: 4, 7, key: "QuantizationModifier.config_groups",
      saying: "at least one")
  }

  @Test func aRecipeOfOursIsNotMistaken() throws {
    try expect("passes: [rtn]\nquant_stage: {}\n", at: 2, 1, key: "quant_stage", saying: "known here")
    try expect("stages: 3\n", at: 1, 1, key: "stages", saying: "known here")
  }
}
