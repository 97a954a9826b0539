import CompressKit
import Testing

/// Mistakes in recipes, and the places and words they are reported with.
@Suite struct RecipeErrorTests {
  private func error(_ yaml: String, _ location: SourceLocation = #_sourceLocation) throws -> RecipeError {
    let error = #expect(throws: RecipeError.self, sourceLocation: location) {
      _ = try Recipe(yaml: yaml, file: "r.yaml", passes: .standard)
    }
    return try #require(error, sourceLocation: location)
  }

  private func expect(
    _ yaml: String, at line: Int, _ column: Int, key: String, suggestion: String? = nil, _ location: SourceLocation = #_sourceLocation
  ) throws {
    let error = try error(yaml, location)
    #expect([error.line, error.column] == [line, column], "\(error)", sourceLocation: location)
    let found: String
    switch error.problem {
    case .syntax(let reason): found = reason
    case .unknownPass(let name, _), .unknownKey(let name, _), .invalid(let name, _), .missing(let name, _): found = name
    }
    #expect(found == key, "\(error)", sourceLocation: location)
    #expect(error.suggestion == suggestion, "\(error)", sourceLocation: location)
    #expect(error.description.hasPrefix("r.yaml:\(line):\(column): "), sourceLocation: location)
    #expect(!error.description.contains("\n"), sourceLocation: location)
    if let suggestion { #expect(error.description.hasSuffix("; did you mean \"\(suggestion)\"?"), sourceLocation: location) }
  }

  /// Each line stands for ten of the one before.
  @Test func aliasesThatMultiplyAreRefused() {
    let bomb = (1...30).map { "- &a\($0) [\(Array(repeating: "*a\($0 - 1)", count: 10).joined(separator: ", "))]" }
    let list = (["passes: [rtn]", "x:", "- &a0 [1]"] + bomb).joined(separator: "\n")
    let words = (1...30).map { "- &a\($0) [*a\($0 - 1), *a\($0 - 1)]" } + ["- { ? *a30 : 1 }"]
    let keys = (["passes: [rtn]", "x:", "- &a0 [1]"] + words).joined(separator: "\n")
    let start = ContinuousClock.now
    #expect { try Recipe(yaml: list, file: "r.yaml", passes: .standard) } throws: { "\($0)".contains("more than 100000 values") }
    #expect { try Recipe(yaml: keys, file: "r.yaml", passes: .standard) } throws: { "\($0)".contains("an alias stands for a key") }
    #expect(start.duration(to: .now) < .seconds(20))
    let shared = "passes:\n  - rtn: { layers: { include: &both [q_proj, k_proj] } }\n  - gptq: { layers: { include: *both } }"
    #expect(throws: Never.self) { try Recipe(yaml: shared, file: "r.yaml", passes: .standard) }
  }

  @Test func unknownPasses() throws {
    try expect("passes:\n  - gtpq: { bits: 4 }\n", at: 2, 5, key: "gtpq", suggestion: "gptq")
    try expect("passes:\n  - rtn\n  - rnt\n", at: 3, 5, key: "rnt", suggestion: "rtn")
    try expect("passes: [{ transmogrify: {} }]", at: 1, 12, key: "transmogrify")
    #expect(try error("passes: [x]").problem == .unknownPass("x", known: PassCatalog.standard.names))
  }

  @Test func unknownKeys() throws {
    try expect("passes:\n  - gptq:\n      bits: 4\n      dampnig: 0.1\n", at: 4, 7, key: "dampnig", suggestion: "damping")
    try expect("passes: [{ gptq: { bits: 4, group-size: 32 } }]", at: 1, 29, key: "group-size", suggestion: "group_size")
    try expect("passes:\n- rtn:\n    layers:\n      exlude: [x]\n", at: 4, 7, key: "exlude", suggestion: "exclude")
    try expect("passes: [gptq]\noutput:\n  formt: plain\n", at: 3, 3, key: "formt", suggestion: "format")
    try expect("passes: [gptq]\ncalibrations: {}\n", at: 2, 1, key: "calibrations", suggestion: "calibration")
    try expect("pases: [gptq]\n", at: 1, 1, key: "pases", suggestion: "passes")
    try expect("passes: [rtn]\nevaluation: { text: \"é文.txt\", windw: 5 }\n", at: 2, 31, key: "windw", suggestion: "window")
  }

  /// The keys that have no default are known too.
  @Test func unknownKeysThatMeantAnOptionalOne() throws {
    try expect("passes: [rtn]\noutput: { directry: x }\n", at: 2, 11, key: "directry", suggestion: "directory")
    try expect("passes: [rtn]\nevaluation: { text: e, strid: 5 }\n", at: 2, 24, key: "strid", suggestion: "stride")
    try expect("passes: [rtn]\ncalibration: { txt: a }\n", at: 2, 16, key: "txt", suggestion: "text")
    try expect(
      "passes:\n- gptq:\n    overrides:\n    - layers: x\n      bitz: 3\n", at: 5, 7, key: "bitz", suggestion: "bits")
  }

  @Test func wrongTypes() throws {
    try expect("passes: [{ gptq: { bits: four } }]", at: 1, 20, key: "gptq.bits")
    try expect("passes: [{ gptq: { bits: 4.5 } }]", at: 1, 20, key: "gptq.bits")
    try expect("passes: [{ gptq: { bits: [4] } }]", at: 1, 20, key: "gptq.bits")
    try expect("passes: [{ gptq: { symmetric: 1 } }]", at: 1, 20, key: "gptq.symmetric")
    try expect("passes: [{ gptq: { damping: small } }]", at: 1, 20, key: "gptq.damping")
    try expect("passes: [{ gptq: { group_size: wide } }]", at: 1, 20, key: "gptq.group_size")
    try expect("passes: [{ gptq: { order: random } }]", at: 1, 20, key: "gptq.order")
    try expect("passes:\n- gptq:\n    layers: { include: down_proj }\n", at: 3, 15, key: "gptq.layers.include")
    try expect(
      "passes:\n- gptq:\n    overrides:\n    - { layers: x }\n    - { layers: y, bits: z }\n", at: 5, 20, key: "gptq.overrides.1.bits")
    try expect("passes: [rtn]\ncalibration:\n  text: a\n  length: long\n", at: 4, 3, key: "calibration.length")
    try expect("passes: [rtn]\nseed: -1\n", at: 2, 1, key: "seed")
    try expect("passes: [rtn]\nseed: 1.5\n", at: 2, 1, key: "seed")
    try expect("passes: [rtn]\nmodel: [a]\n", at: 2, 1, key: "model")
  }

  /// Of a closed set, the choices are said.
  @Test(arguments: [
    ("gptq: { order: actvation }", "gptq.order: unknown \"actvation\"; known: activation, group, natural", "activation"),
    ("gptq: { order: 3 }", "gptq.order: unknown \"3\"; known: activation, group, natural", nil),
    ("gptq: { numbers: int4 }", "gptq.numbers: unknown \"int4\"; known: int, fp8, mxfp4, mxfp8, nvfp4", "int"),
    ("kv_cache: { scheme: kivvi }", "kv_cache.scheme: unknown \"kivvi\"; known: ", "kivi"),
    ("prune_width: { axis: head }", "prune_width.axis: unknown \"head\"; known: ", "heads"),
    ("sparsegpt: { quantize: { numbers: itn } }", "sparsegpt.quantize.numbers: unknown \"itn\"; known: none, int, ", "int"),
    ("allocate: { sensitivity: kll }", "allocate.sensitivity: unknown \"kll\"; known: kl, layer", "kl"),
    (
      "gptq: { overrides: [{ layers: a }, { layers: b, numbers: itn }] }", "gptq.overrides.1.numbers: unknown \"itn\"; known: int, fp8",
      "int"
    ),
    ("allocate: { candidates: [{ bits: 4 }, { numbers: fp9 }] }", "allocate.candidates.1.numbers: unknown \"fp9\"; known: int, fp8", "fp8"),
    ("distill: { moves: [scales, nrms] }", "distill.moves.1: unknown \"nrms\"; known: weights, lora, scales", "norms"),
    ("gptq: { bits: four }", "gptq.bits: a whole number is needed", nil), ("gptq: { damping: x }", "gptq.damping: a number is needed", nil),
    ("gptq: { symmetric: 1 }", "gptq.symmetric: true or false is needed", nil),
  ])
  func wrongWordsNameTheChoices(_ pass: String, _ words: String, _ suggestion: String?) throws {
    let error = try error("passes: [{ \(pass) }]")
    #expect(error.description.contains(words) && error.suggestion == suggestion, "\(error)")
  }

  @Test func wrongWordsOutsideThePasses() throws {
    #expect(
      try error("passes: [rtn]\noutput: { mixed_groups: alow }").description.contains("known: refuse, allow; did you mean \"allow\"?"))
    #expect(try error("passes: [rtn]\ncalibration: { text: a, packing: document }").suggestion == "documents")
  }

  @Test func impossibleValues() throws {
    try expect("passes:\n  - gptq:\n      order: natural\n      bits: 7\n", at: 4, 7, key: "gptq.bits")
    try expect("passes: [{ rtn: { group_size: 0 } }]", at: 1, 19, key: "rtn.group_size")
    try expect("passes: [{ gptq: { damping: -0.1 } }]", at: 1, 20, key: "gptq.damping")
    try expect("passes: [{ gptq: { block_size: 0 } }]", at: 1, 20, key: "gptq.block_size")
    try expect(
      "passes:\n- gptq:\n    overrides:\n    - { layers: x }\n    - { layers: y, bits: 7 }\n", at: 5, 20, key: "gptq.overrides[1].bits")
    try expect("passes: [rtn]\ncalibration: { text: a, sequences: 0 }", at: 2, 25, key: "calibration.sequences")
    try expect("passes: [rtn]\ncalibration: { text: a, length: 1 }", at: 2, 25, key: "calibration.length")
    try expect("passes: [rtn]\nevaluation: { text: a, window: 1 }", at: 2, 24, key: "evaluation.window")
    try expect("passes: [rtn]\nevaluation: { text: a, stride: 0 }", at: 2, 24, key: "evaluation.stride")
  }

  @Test(arguments: [-5, 0, 1])
  func anEvaluationNeedsTwoTokens(limit: Int) throws {
    try expect("passes: [rtn]\nevaluation: { text: a, limit: \(limit) }", at: 2, 24, key: "evaluation.limit")
  }

  @Test(arguments: ["calibration", "evaluation"])
  func eitherTextOrTokens(section: String) throws {
    try expect("passes: [rtn]\n\(section): {}\n", at: 2, section.count + 3, key: section)
    try expect("passes: [rtn]\n\(section): { text: a, tokens: b }\n", at: 2, section.count + 3, key: section)
  }

  @Test func shapesOfTheRecipe() throws {
    try expect("seed: 3\n", at: 1, 1, key: "passes")
    try expect("seed: 3\npasses: []\n", at: 2, 1, key: "passes")
    try expect("passes: gptq\n", at: 1, 1, key: "passes")
    try expect("- gptq\n", at: 1, 1, key: "recipe")
    try expect("gptq\n", at: 1, 1, key: "recipe")
    try expect("passes:\n  - gptq: {}\n    rtn: {}\n", at: 2, 5, key: "passes")
    try expect("passes:\n  - [gptq]\n", at: 2, 5, key: "passes")
    try expect("passes:\n  - gptq: 4\n", at: 2, 11, key: "gptq")
    try expect("passes: [rtn]\noutput: plain\n", at: 2, 9, key: "output")
  }

  // MARK: YAML

  @Test(arguments: [
    ("passes:\n  - gptq: { bits: 4\n", 3), ("passes:\n\t- gptq\n", 2), ("passes: [rtn]\nmodel: \"open\n", 3),
    ("passes: [rtn]\n  x: 1\n y: 2\n", 2),
    ("passes: *nowhere\n", 1), ("a: b: c\n", 1),
  ])
  func syntaxErrorsHaveAPlace(yaml: String, line: Int) throws {
    let error = try error(yaml)
    guard case .syntax(let reason) = error.problem else {
      Issue.record("\(error)")
      return
    }
    #expect(reason.hasPrefix("not valid YAML: "))
    #expect(abs(error.line - line) <= 1 && error.line >= 1 && error.column >= 1, "\(error)")
    #expect(error.description.hasPrefix("r.yaml:\(error.line):\(error.column): "))
  }

  @Test(arguments: ["", "\n\n", "# nothing but a comment\n", "---\n"])
  func emptyFiles(yaml: String) throws {
    let error = try error(yaml)
    #expect(error.description.contains("empty") || error.description.contains("a mapping with a `passes` list is needed"))
  }

  @Test func repeatedKeys() throws {
    let top = try error("passes: [rtn]\nseed: 1\nseed: 2\n")
    #expect(top.description.contains("repeated key seed"))
    #expect(try error("passes: [{ gptq: { bits: 4, bits: 3 } }]").description.contains("repeated key bits"))
  }

  @Test func theCatalogDecidesWhichPassesAreKnown() throws {
    let catalog = PassCatalog([RoundToNearest.self])
    #expect(catalog.names == ["rtn"] && catalog["rtn"] != nil && catalog["gptq"] == nil)
    #expect(catalog.adding(GPTQ.self).names == ["rtn", "gptq"])
    let error = #expect(throws: RecipeError.self) { try Recipe(yaml: "passes: [gptq]", file: "r.yaml", passes: catalog) }
    #expect(error?.problem == .unknownPass("gptq", known: ["rtn"]))
  }
}
