import CompressKit
import Testing

@Suite struct RecipeTests {
  private func recipe(_ yaml: String, _ settings: String...) throws -> Recipe {
    try Recipe(yaml: yaml, file: "r.yaml", settings: settings, passes: .standard)
  }

  private func gptq(_ options: String) throws -> GPTQ {
    try #require(try recipe("passes:\n  - gptq: \(options)\n").passes.first as? GPTQ)
  }

  @Test func readsEverySection() throws {
    let recipe = try recipe(
      """
      # A comment
      model: some/where
      seed: 7
      calibration: { text: "a b.txt", sequences: 3, length: 64 }
      passes:
        - rtn
        - gptq: { bits: 3, group_size: 64, damping: 0.05, order: natural }
        - gptq:
            bits: 8
      output: { format: plain, directory: out, max_shard_size: 2GB }
      evaluation: { tokens: e.npy, window: 128, stride: 64, limit: 1000 }
      """)
    #expect(recipe.model == "some/where" && recipe.seed == 7)
    #expect(recipe.calibration == CalibrationSource(text: "a b.txt", sequences: 3, length: 64))
    #expect(recipe.evaluation == EvaluationSource(tokens: "e.npy", window: 128, stride: 64, limit: 1000))
    #expect(recipe.output.format == "plain" && recipe.output.directory == "out" && recipe.output.maxShardSize == "2GB")
    #expect(recipe.passes.map { type(of: $0).name } == ["rtn", "gptq", "gptq"])
    let (first, second) = (try #require(recipe.passes[1] as? GPTQ), try #require(recipe.passes[2] as? GPTQ))
    #expect(first.bits == 3 && first.groupSize == 64 && first.damping == 0.05 && first.order == .natural)
    #expect(second.bits == 8 && second.groupSize == nil && second.effective.groupSize == 128 && second.order == .activation)
  }

  @Test func whatIsNotSaidKeepsItsDefault() throws {
    let recipe = try recipe("passes: [gptq, { rtn: }, { rtn: {} }]\ncalibration: { text: a }\nevaluation: { text: b }")
    let (given, defaults) = (try #require(recipe.passes[0] as? GPTQ), GPTQ())
    #expect(
      given.bits == defaults.bits && given.groupSize == defaults.groupSize && given.symmetric == defaults.symmetric
        && given.damping == defaults.damping && given.layers == defaults.layers && given.overrides == defaults.overrides)
    #expect(recipe.passes.count == 3 && recipe.passes[1] is RoundToNearest && recipe.passes[2] is RoundToNearest)
    #expect(recipe.calibration == CalibrationSource(text: "a") && recipe.evaluation == EvaluationSource(text: "b"))
    #expect(recipe.seed == 0 && recipe.model == nil && recipe.output.format == "compressed-tensors")
  }

  @Test(arguments: [
    ("{ layers: down_proj }", LayerSelector(include: ["down_proj"])), ("{ layers: [a, mlp.*] }", LayerSelector(include: ["a", "mlp.*"])),
    ("{ layers: \"*\" }", LayerSelector()), ("{ layers: { exclude: [lm_head] } }", LayerSelector(exclude: ["lm_head"])),
    ("{ layers: { include: [a], exclude: [b] } }", LayerSelector(include: ["a"], exclude: ["b"])), ("{ layers: {} }", LayerSelector()),
    (#"{ layers: 're:.*\.mlp' }"#, LayerSelector(include: [#"re:.*\.mlp"#])),
  ])
  func layersHaveShortForms(options: String, expected: LayerSelector) throws { #expect(try gptq(options).layers == expected) }

  @Test(arguments: [("128", GroupSize.columns(128)), ("channel", .channel), ("-1", .channel), ("\"channel\"", .channel)])
  func groupSizesHaveTheirSpellings(text: String, expected: GroupSize) throws {
    #expect(try gptq("{ group_size: \(text) }").groupSize == expected)
  }

  @Test func overridesAreReadInOrder() throws {
    let pass = try gptq("{ overrides: [{ layers: down_proj, bits: 8 }, { layers: [q_proj], group_size: channel, symmetric: false }] }")
    #expect(
      pass.overrides == [
        QuantizationOverride(layers: LayerSelector(include: ["down_proj"]), bits: 8),
        QuantizationOverride(layers: LayerSelector(include: ["q_proj"]), groupSize: .channel, symmetric: false),
      ])
  }

  @Test func nullMeansTheDefault() throws {
    let recipe = try recipe(
      """
      model: null
      seed: null
      passes:
        - gptq: { bits: null, damping: ~ }
      calibration: { text: a, tokens: null }
      evaluation: { text: a, stride: null, limit: }
      output: { directory: null }
      """)
    #expect(recipe.model == nil && recipe.output.directory == nil)
    #expect(recipe.evaluation == EvaluationSource(text: "a"))
    #expect((recipe.passes[0] as? GPTQ)?.effective.bits == 4 && (recipe.passes[0] as? GPTQ)?.damping == 0.01)
    #expect(try self.recipe("passes: [rtn]\ncalibration: null\nevaluation:\noutput:\n").calibration == nil)
  }

  @Test func quotedNumbersAreWords() throws {
    #expect(try recipe("passes: [rtn]\nmodel: '7'").model == "7")
    #expect(throws: RecipeError.self) { try recipe("passes: [{ rtn: { bits: '4' } }]") }
  }

  @Test func numbersMayBeSpelledAsYAMLAllows() throws {
    #expect(try gptq("{ damping: 1e-3 }").damping == 0.001)
    #expect(try gptq("{ damping: 1 }").damping == 1)
    #expect(try gptq("{ damping: .5 }").damping == 0.5)
  }

  // MARK: Printing

  @Test(arguments: [
    "passes: [rtn]", "passes: [rtn, rtn, gptq, rtn]\nseed: 12", "passes: [{ gptq: { damping: 1.0e-7, layers: [a, 're:(x|y).*'] } }]",
    "passes: [{ rtn: { importance: activations, scales: minmax, symmetric: false, group_size: channel } }]\ncalibration: { tokens: t.npy }",
    "passes: [{ gptq: { overrides: [{ layers: { exclude: ['*'] }, bits: 2 }, { layers: x }] } }]\noutput: { directory: d }\nmodel: m",
    "passes: [gptq]\nevaluation: { text: e, stride: 5, limit: 10 }\ncalibration: { text: 'it''s', length: 5 }",
    "passes: [{ allocate: { scales: full_range, drift_correction: 0.5 } }]\ncalibration: { text: c }\nprobes: { text: p, sequences: 3 }",
  ])
  func printingAndReadingGivesTheSamePasses(yaml: String) throws {
    let first = try recipe(yaml)
    let second = try recipe(first.yaml)
    #expect(first.yaml == second.yaml)
    #expect(first.probes == second.probes)
    #expect(first.calibration == second.calibration && first.evaluation == second.evaluation && first.output == second.output)
    #expect(first.model == second.model && first.seed == second.seed)
    #expect(first.passes.map { type(of: $0).name } == second.passes.map { type(of: $0).name })
  }

  @Test func probesAreAsLongAsTheCalibrationSequences() throws {
    let passes = "passes: [allocate]\n"
    #expect(
      try recipe(passes + "calibration: { text: c, length: 64 }\nprobes: { tokens: p.npy }").probes
        == CalibrationSource(tokens: "p.npy", sequences: 8, length: 64))
    #expect(
      try recipe(passes + "probes: { text: p, sequences: 2, length: 9 }").probes == CalibrationSource(text: "p", sequences: 2, length: 9))
    for (wrong, place) in [
      ("{ self: {} }", "probes.self"), ("{ text: p, statistics: s }", "probes.statistics"),
      ("{ text: p, sequences: 0 }", "probes.sequences"),
      ("{ text: p, tokens: t }", "probes"),
    ] {
      let error = #expect(throws: RecipeError.self) { try recipe(passes + "probes: \(wrong)") }
      #expect("\(error.map { "\($0)" } ?? "")".contains(place), "\(wrong)")
    }
  }

  @Test func thePrintedRecipeNamesAllDefaults() throws {
    let text = try recipe("passes: [gptq]").yaml
    for key in [
      "bits: 4", "group_size: 128", "symmetric: true", "damping: 0.01", "order: activation", "static_groups: false", "block_size: 128",
      "scales: clip", "format: compressed-tensors", "max_shard_size: 5GB", "seed: 0",
    ] { #expect(text.contains(key), "\(key)") }
  }

  @Test(arguments: [
    "a: b", "# c", "a #b", "true", "Yes", "no", "on", "1e5", "12", "null", "~", " lead", "trail ", "ünï 文 🎈", "it's", "\"q\"", "tab\tx",
    "two\nlines", "-", "- a", "?", "=", "<<", "0x1F", "0o17", "1_000", "12:30:45", "2001-01-01", "%a", "@x", "`x`", "a,b", "C:\\dir",
    ".inf",
    ".nan", "!tag", "&a", "*a", "[x]", "{x}", "|", ">", "---", "...", "é\u{301}", "\u{1}", "a\u{85}b", "\\n", "x: ", ":", "a:",
  ])
  func anyPathSurvivesPrinting(path: String) throws {
    var recipe = try recipe("passes: [rtn]")
    recipe.model = path
    recipe.calibration = CalibrationSource(text: TextSources(path))
    let again = try self.recipe(recipe.yaml)
    #expect(again.model.map { Array($0.unicodeScalars) } == Array(path.unicodeScalars))
    #expect(again.calibration?.text == TextSources(path))
  }

  @Test(arguments: [0, 1, UInt64(Int.max), UInt64(Int.max) + 1, .max])
  func anySeedSurvivesPrinting(seed: UInt64) throws {
    var recipe = try recipe("passes: [rtn]")
    recipe.seed = seed
    #expect(try self.recipe(recipe.yaml).seed == seed)
  }
}
