import CompressKit
import Testing

/// Recipes of llm-compressor, held against the recipe of ours that says the same.
@Suite struct LLMCompressorRecipeTests {
  private func expect(
    _ modifiers: String, means passes: String, remarks: [String] = [], _ location: SourceLocation = #_sourceLocation
  ) throws {
    let read = try Dialect.read(Dialect.stage(modifiers))
    #expect(read.yaml == (try Dialect.read("passes:\n" + passes)).yaml, sourceLocation: location)
    #expect(read.remarks == remarks, sourceLocation: location)
    // What is printed is a recipe of ours that reads back the same.
    let printed = try Dialect.read(read.yaml)
    #expect(printed.yaml == read.yaml && printed.remarks.isEmpty, sourceLocation: location)
  }

  private static let gptq = "scales: minmax, order: activation, static_groups: true, refit: false, damping: 0.01, block_size: 128"

  // MARK: Quantizers

  @Test func rounding() throws {
    try expect(
      "QuantizationModifier: { scheme: W4A16, targets: [Linear], ignore: [lm_head] }",
      means: "- rtn: { bits: 4, group_size: 128, scales: minmax, layers: { include: ['*'], exclude: [lm_head] } }\n")
    try expect(
      "QuantizationModifier: { scheme: FP8_DYNAMIC, ignore: [lm_head] }",
      means: "- rtn: { numbers: fp8, group_size: channel, activations: fp8, scales: minmax, layers: { exclude: [lm_head] } }\n")
  }

  @Test func gptq() throws {
    try expect(
      "GPTQModifier: { scheme: W4A16, targets: Linear, ignore: [lm_head] }",
      means: "- gptq: { bits: 4, group_size: 128, \(Self.gptq), layers: { exclude: [lm_head] } }\n")
    try expect(
      """
      GPTQModifier:
        block_size: 64
        dampening_frac: 0.001
        actorder: null
        ignore: ["lm_head"]
        config_groups:
          group_0:
            weights: { num_bits: 3, type: int, symmetric: false, strategy: group, group_size: 64 }
            input_activations: null
            output_activations: null
            targets: [Linear]
      """,
      means: """
        - gptq:
            bits: 3
            group_size: 64
            symmetric: false
            scales: minmax
            order: natural
            static_groups: true
            refit: false
            damping: 0.001
            block_size: 64
            layers: { exclude: [lm_head] }
        """)
  }

  /// As the reference saves it: every field, and a word of an enumeration as Python dumps it.
  @Test func aSavedRecipe() throws {
    try expect(
      """
      GPTQModifier:
        config_groups:
          group_0:
            targets: [Linear]
            weights:
              num_bits: 4
              type: int
              symmetric: false
              group_size: 128
              strategy: group
              block_structure: null
              dynamic: false
              actorder: !!python/object/apply:compressed_tensors.quantization.quant_args.ActivationOrdering [
                static]
              scale_dtype: null
              zp_dtype: torch.int8
              observer: memoryless_minmax
              observer_kwargs: {}
            input_activations: null
            output_activations: null
            format: null
        targets: [Linear]
        ignore: [lm_head]
        bypass_divisibility_checks: false
        requires_calibration_data: true
        block_size: 128
        dampening_frac: 0.01
        actorder: static
        offload_hessians: false
      """, means: "- gptq: { bits: 4, symmetric: false, group_size: 128, \(Self.gptq), layers: { exclude: [lm_head] } }\n",
      remarks: ["r.yaml:3:5: GPTQModifier: requires_calibration_data, offload_hessians have no meaning here"])
  }

  @Test(arguments: [
    ("", "activation"), ("actorder: static", "activation"), ("actorder: weight", "activation"), ("actorder: null", "natural"),
    ("actorder: false", "natural"),
  ])
  func orders(argument: String, order: String) throws {
    let recipe = try Dialect.read(Dialect.stage("GPTQModifier:\n  scheme: W4A16\n  ignore: [lm_head]\n  \(argument)"))
    let gptq = try #require(recipe.passes[0] as? GPTQ)
    #expect(gptq.order.rawValue == order && gptq.staticGroups && !gptq.refit)
  }

  @Test func theOrderOfASchemeHolds() throws {
    func order(_ own: String, _ scheme: String) throws -> GPTQ.Order? {
      let weights = "{ num_bits: 4, group_size: 128, \(scheme) }"
      let recipe = try Dialect.read(
        Dialect.stage("GPTQModifier: { \(own) ignore: [lm_head], config_groups: { g: { targets: [Linear], weights: \(weights) } } }"))
      return (recipe.passes[0] as? GPTQ)?.order
    }
    #expect(try order("", "actorder: weight") == .activation)
    #expect(try order("actorder: static,", "actorder: static") == .activation)
    #expect(try order("actorder: null,", "actorder: false") == .natural)
    #expect(try order("", "actorder: null") == .activation)
    #expect(throws: RecipeError.self) { try order("actorder: null,", "actorder: weight") }
    #expect(throws: RecipeError.self) { try order("", "actorder: group") }
    #expect(throws: RecipeError.self) { try order("actorder: static,", "actorder: group") }
    #expect(throws: RecipeError.self) { try order("actorder: dynamic,", "") }
  }

  @Test func aBareGPTQSolvesForTheSchemeBeforeIt() throws {
    try expect(
      """
      QuantizationModifier:
        ignore: [lm_head, model.layers.0.mlp.down_proj]
        config_groups: { group_0: { weights: { num_bits: 4, symmetric: false, strategy: group, group_size: 128 }, targets: [Linear] } }
      GPTQModifier:
        block_size: 32
      """,
      means: """
        - gptq:
            bits: 4
            symmetric: false
            group_size: 128
            scales: minmax
            order: activation
            static_groups: true
            refit: false
            block_size: 32
            layers: { exclude: [lm_head], ignore: [model.layers.0.mlp.down_proj] }
        """)
  }

  @Test(arguments: [
    ("", "minmax", "none"), ("weight_observer: minmax", "minmax", "none"), ("weight_observer: memoryless_mse", "clip", "none"),
    ("observer: { weights: mse }", "clip", "none"), ("weight_observer: imatrix_mse", "clip", "activations"),
    ("weight_observer: nvfp4_expanded_mse", "clip", "none"),
  ])
  func observers(argument: String, scales: String, importance: String) throws {
    for (modifier, isRounding) in [("QuantizationModifier", true), ("GPTQModifier", false)] {
      let recipe = try Dialect.read(Dialect.stage("\(modifier):\n  scheme: W4A16\n  ignore: [lm_head]\n  \(argument)"))
      #expect(((recipe.passes[0] as? GPTQ)?.scales ?? (recipe.passes[0] as? RoundToNearest)?.scales)?.rawValue == scales)
      if isRounding { #expect((recipe.passes[0] as? RoundToNearest)?.importance.rawValue == importance) }
      #expect(recipe.remarks.isEmpty == (scales == "minmax"))
    }
  }

  @Test func observersOfASchemeAndOfInputs() throws {
    try expect(
      """
      QuantizationModifier:
        ignore: [lm_head]
        config_groups:
          g:
            targets: [Linear]
            weights: { num_bits: 8, strategy: channel, observer: mse }
            input_activations: { num_bits: 8, strategy: tensor, observer: minmax }
      """,
      means: "- rtn: { bits: 8, group_size: channel, activations: int8_static, scales: clip, layers: { exclude: [lm_head] } }\n",
      remarks: [
        "r.yaml:9:63: observer: inputs go by their extremes over all calibration data (static_minmax)",
        "r.yaml:8:54: mse: scales are searched as `scales: clip` does it, by squared error",
      ])
  }

  @Test func severalQuantizersEachGetTheirPass() throws {
    try expect(
      #"""
      QuantizationModifier: { ignore: [lm_head], scheme: W4A16, targets: ["re:.*self_attn\\.(k|q|o|v)_proj$"] }
      GPTQModifier: { ignore: [lm_head], scheme: W8A8, targets: ["re:.*mlp\\.(down|gate|up)_proj$"], actorder: null }
      """#,
      means: #"""
        - rtn: { bits: 4, group_size: 128, scales: minmax, layers: { include: ['re:.*self_attn\.(k|q|o|v)_proj$'], exclude: [lm_head] } }
        - gptq:
            bits: 8
            group_size: channel
            activations: int8
            scales: minmax
            order: natural
            static_groups: true
            refit: false
            layers: { include: ['re:.*mlp\.(down|gate|up)_proj$'], exclude: [lm_head] }
        """#)
  }

  // MARK: The cache

  @Test func theCacheComesLast() throws {
    try expect(
      "QuantizationModifier:\n  kv_cache_scheme: {num_bits: 8, type: float, symmetric: true, strategy: tensor}",
      means: "- kv_cache: { scheme: fp8 }\n")
    try expect(
      """
      GPTQModifier:
        ignore: ["lm_head"]
        actorder: null
        config_groups:
          group_0: { weights: { num_bits: 4, type: "int", symmetric: true, strategy: "channel", actorder: False }, targets: ["Linear"] }
        kv_cache_scheme: { num_bits: 8, dynamic: false }
      """,
      means: """
        - gptq: { bits: 4, group_size: channel, scales: minmax, order: natural, static_groups: true, refit: false, layers: { exclude: [lm_head] } }
        - kv_cache: { scheme: int8 }
        """)
    let alone = try Dialect.read(Dialect.stage("QuantizationModifier:\n  ignore: [lm_head]\n  kv_cache_scheme: { num_bits: 8 }"))
    #expect(alone.passes.count == 1 && alone.remarks == ["r.yaml:4:7: ignore has no meaning here: only the cache is quantized, all of it"])
  }

  // MARK: Transforms

  @Test func awq() throws {
    let awq = "grid: 20, duo: both, clip: false"
    try expect(
      """
      AWQModifier:
        duo_scaling: "both"
      QuantizationModifier:
        ignore: [lm_head]
        config_groups: { group_0: { weights: { num_bits: 4, type: int, symmetric: false, strategy: group, group_size: 128 }, targets: [Linear] } }
      """,
      means: """
        - awq: { \(awq) }
        - rtn: { bits: 4, group_size: 128, symmetric: false, scales: minmax, layers: { exclude: [lm_head] } }
        """)
    try expect(
      "AWQModifier: { n_grid: 7, mappings: null, offload_device: cpu }\nGPTQModifier: { scheme: NVFP4, ignore: [lm_head] }",
      means: """
        - awq: { grid: 7, duo: true, clip: false }
        - gptq: { numbers: nvfp4, activations: nvfp4, \(Self.gptq), layers: { exclude: [lm_head] } }
        """, remarks: ["r.yaml:3:5: AWQModifier: offload_device has no meaning here"])
  }

  @Test func awqAsItWasWritten() throws {
    try expect(
      "AWQModifier: { scheme: W4A16_ASYM, targets: [Linear], ignore: [lm_head], duo_scaling: false }",
      means: """
        - awq: { grid: 20, duo: false, clip: false }
        - rtn: { bits: 4, group_size: 128, symmetric: false, scales: minmax, layers: { exclude: [lm_head] } }
        """)
  }

  @Test func awqTakesItsSchemesFromAllThatFollow() throws {
    try expect(
      """
      AWQModifier: {}
      QuantizationModifier: { ignore: [lm_head], scheme: W4A16, targets: ['re:.*q_proj$'] }
      GPTQModifier: { ignore: [lm_head], scheme: W8A8, targets: ['re:.*mlp.*'] }
      """,
      means: """
        - awq: { grid: 20, duo: true, clip: false }
        - rtn: { bits: 4, group_size: 128, scales: minmax, layers: { include: ['re:.*q_proj$'], exclude: [lm_head] } }
        - gptq: { bits: 8, group_size: channel, activations: int8, \(Self.gptq), layers: { include: ['re:.*mlp.*'], exclude: [lm_head] } }
        """)
  }

  @Test func smoothQuant() throws {
    try expect(
      """
      SmoothQuantModifier: { smoothing_strength: 0.8 }
      GPTQModifier:
        ignore: [lm_head]
        actorder: null
        config_groups:
          group_0:
            weights: {num_bits: 8, type: int, symmetric: true, strategy: channel}
            input_activations: {num_bits: 8, type: int, symmetric: true, strategy: tensor, observer: static_minmax}
            targets: [Linear]
      """,
      means: """
        - smoothquant: { strength: 0.8 }
        - gptq:
            bits: 8
            group_size: channel
            activations: int8_static
            scales: minmax
            order: natural
            static_groups: true
            refit: false
            layers: { exclude: [lm_head] }
        """)
    try expect(
      "SmoothQuantModifier: { ignore: ['re:.*layers\\.0\\..*'], mappings: null, algorithm: smoothquant }",
      means: "- smoothquant: { strength: 0.5, layers: { ignore: ['re:.*layers\\.0\\..*'] } }\n")
  }

  @Test(arguments: [
    ("{ transform_type: random-hadamard }", "{ hidden: hadamard, values: hadamard }"),
    (
      "{ rotations: [R1], transform_type: random-hadamard, randomize: false, precision: torch.float64 }",
      "{ hidden: hadamard, values: none }"
    ),
    ("{ rotations: [r2], transform_type: random-matrix, learnable: false }", "{ hidden: none, values: random }"),
  ])
  func spinQuant(arguments: String, options: String) throws {
    try expect("SpinQuantModifier: \(arguments)", means: "- rotate: \(options)\n")
  }

  @Test func aHadamardMatrixGetsSigns() throws {
    try expect(
      "SpinQuantModifier: {}", means: "- rotate: { hidden: hadamard, values: hadamard }\n",
      remarks: ["r.yaml:3:5: SpinQuantModifier: the Hadamard matrix gets random signs here (random-hadamard)"])
  }

  // MARK: Files

  @Test func stagesAndGroupsAreReadInOrder() throws {
    let recipe = try Dialect.read(
      """
      rotation_stage:
        x_modifiers:
          SpinQuantModifier: { rotations: [R1] }
        y_modifiers:
          SmoothQuantModifier: {}
      quant_stage:
        quant_modifiers:
          GPTQModifier: { scheme: W4A16, ignore: [lm_head] }
      """)
    #expect(recipe.passes.map { type(of: $0).name } == ["rotate", "smoothquant", "gptq"])
  }

  @Test func jsonIsReadToo() throws {
    let json = """
      {
      \t"quant_stage": {
      \t\t"quant_modifiers": { "QuantizationModifier": { "scheme": "W8A16", "targets": ["Linear"], "ignore": ["lm_head"] } }
      \t}
      }
      """
    let recipe = try Dialect.read(json, file: "r.json")
    #expect((recipe.passes[0] as? RoundToNearest)?.bits == 8)
  }

  @Test func markdownIsReadToo() throws {
    let modifier = Dialect.stage("GPTQModifier: { scheme: W4A16, ignore: [lm_head], damp: 3 }")
    for fence in ["---", "+++"] {
      let text = "# Notes\n\n\(fence)\n\(modifier)\(fence)\nquant_stage: text\n"
      let error = #expect(throws: RecipeError.self) { try Dialect.read(text, file: "r.md") }
      #expect(error?.line == 6 && error?.problem.key == "damp")
      #expect(try Dialect.read(text.replacing(", damp: 3", with: ""), file: "r.md").passes.count == 1)
    }
    #expect(try Dialect.read("---\npasses: [rtn]\n---\nwords\n", file: "own.md").passes.count == 1)
    #expect(throws: RecipeError.self) { try Dialect.read("words\n", file: "r.md") }
    #expect(throws: RecipeError.self) { try Dialect.read("---\npasses: [rtn]\n", file: "r.md") }
  }

  @Test func settingsApplyToTheMappedRecipe() throws {
    let recipe = try Dialect.read(
      Dialect.stage("GPTQModifier: { scheme: W4A16, ignore: [lm_head] }"), "calibration.text=c.txt", "calibration.length=64",
      "evaluation={ text: e.txt, window: 32 }", "output.directory=o", "model=m", "seed=4", "passes.gptq.bits=3")
    #expect(recipe.calibration == CalibrationSource(text: "c.txt", length: 64) && recipe.evaluation?.window == 32)
    #expect(recipe.output.directory == "o" && recipe.model == "m" && recipe.seed == 4)
    #expect((recipe.passes[0] as? GPTQ)?.bits == 3)
    #expect(try Dialect.read(recipe.yaml).yaml == recipe.yaml)
  }
}

extension RecipeError.Problem {
  /// What the mistake is about.
  var key: String {
    switch self {
    case .syntax(let reason): reason
    case .unknownPass(let name, _), .unknownKey(let name, _), .invalid(let name, _), .missing(let name, _): name
    }
  }
}
