import CompressKit
import Foundation
import TestSupport
import Testing

@Suite struct LayerSelectorTests {
  static let down = "model.layers.0.mlp.down_proj"
  static let query = "model.layers.10.self_attn.q_proj"

  @Test(arguments: [
    ("*", down, true), ("down_proj", down, true), ("proj", down, false), ("own_proj", down, false), ("mlp.*", down, true),
    ("mlp.*", query, false), ("*.q_proj", query, true), ("?_proj", query, true), ("?_proj", down, false), ("layers.?.*", down, true),
    ("layers.?.*", query, false), ("layers.1*", query, true), ("layers.1*", down, false), (down, down, true), ("model.*", down, true),
    ("model.layers.0", down, false), ("layers.0.*.down_proj", down, true), ("", down, false), ("*down*", down, true),
    ("DOWN_PROJ", down, false), ("down_proj*", down, true), ("down_proj?", down, false), ("down.proj", down, false),
  ])
  func globs(pattern: String, name: String, matches: Bool) {
    #expect(LayerSelector(include: [pattern]).contains(name) == matches)
    #expect(LayerSelector(exclude: [pattern]).contains(name) == !matches)
  }

  @Test(arguments: [
    (#"re:.*\.down_proj"#, down, true), ("re:down_proj", down, false), (#"re:model\.layers\.[0-4]\."#, down, true),
    (#"re:model\.layers\.[0-4]\."#, query, false), (#"re:model\.layers\.(0|10)\."#, query, true), ("re:(", down, false),
    ("re:.*(q|k)_proj$", query, true), ("re:.*(q|k)_proj$", down, false),
  ])
  func regularExpressions(pattern: String, name: String, matches: Bool) {
    #expect(LayerSelector(include: [pattern]).contains(name) == matches)
  }

  @Test(arguments: [
    ("*", false), ("lm_head", true), ("lm_hea?", false), ("lm_*", false), ("re:lm_head", true), ("re:.*lm_head$", true), ("re:.*", false),
    ("re:lm_.*", false), ("down_proj", false),
  ])
  func theEndsAreSelectedOnlyByName(pattern: String, matches: Bool) {
    #expect(LayerSelector(include: [pattern]).contains("lm_head", isEnd: true) == matches)
  }

  @Test func theEmbeddingMayBeNamedInFullOrByItsEnd() {
    for pattern in ["embed_tokens", "model.embed_tokens"] {
      #expect(LayerSelector(include: [pattern]).contains("model.embed_tokens", isEnd: true))
    }
  }

  @Test func wildcardsExcludeTheEndsToo() {
    #expect(!LayerSelector(include: ["lm_head"], exclude: ["lm_*"]).contains("lm_head", isEnd: true))
    #expect(LayerSelector(include: ["lm_head"], exclude: ["mlp.*"]).contains("lm_head", isEnd: true))
  }

  @Test func exclusionWins() {
    let selector = LayerSelector(include: ["mlp.*"], exclude: ["down_proj"])
    #expect(!selector.contains(Self.down))
    #expect(selector.contains("model.layers.0.mlp.up_proj"))
  }

  // MARK: Checking against a model

  private func error(_ selector: LayerSelector) throws -> InvalidOption? {
    let linears = try Pipeline([]).plan(for: TinyModel.model())
    do { try selector.check(against: linears) } catch { return error }
    return nil
  }

  @Test(arguments: [
    LayerSelector(), LayerSelector(include: ["mlp.*", "lm_head", "embed_tokens"]), LayerSelector(exclude: ["lm_head", "layers.1.*"]),
    LayerSelector(include: [#"re:model\.layers\.0\..*"#]), LayerSelector(exclude: ["model.embed_tokens"]),
  ])
  func acceptsWhatMatches(selector: LayerSelector) throws { #expect(try error(selector) == nil) }

  @Test(arguments: [
    ("down_porj", "down_proj"), ("lm_haed", "lm_head"), ("model.layers.0.mlp.down_prj", "model.layers.0.mlp.down_proj"),
    ("embed_token", "embed_tokens"),
  ])
  func namesTheNearestWord(pattern: String, nearest: String) throws {
    let included = try #require(try error(LayerSelector(include: ["*", pattern])))
    #expect(included.option.hasSuffix("include"))
    #expect(included.reason.contains("\"\(pattern)\"") && included.reason.contains("did you mean \"\(nearest)\"?"))
    let excluded = try #require(try error(LayerSelector(exclude: [pattern])))
    #expect(excluded.option.hasSuffix("exclude"))
  }

  @Test(arguments: ["w1", "layers.7.*", "re:down_proj", "completely.different.words"])
  func refusesWhatMatchesNothing(pattern: String) throws {
    #expect(try error(LayerSelector(include: [pattern])) != nil)
    #expect(try error(LayerSelector(exclude: [pattern])) != nil)
  }

  @Test func whatIsIgnoredMayBeAbsent() throws {
    let selector = LayerSelector(ignore: ["re:vision_tower.*", "re:.*mtp.*", "layers.0.*"])
    #expect(try error(selector) == nil)
    #expect(!selector.contains("model.layers.0.mlp.down_proj") && selector.contains("model.layers.1.mlp.down_proj"))
    let names = try Pipeline([]).plan(for: TinyModel.model()).map(\.name)
    #expect(selector.idle(among: names) == ["re:vision_tower.*", "re:.*mtp.*"])
    #expect(selector.idle(among: names + ["vision_tower.fc", "mtp.fc"]).isEmpty)
    #expect(try error(LayerSelector(ignore: ["re:("])) != nil)
  }

  @Test func whatTheCheckpointHoldsBesidesMayBeExcluded() throws {
    let linears = try Pipeline([]).plan(for: TinyModel.model())
    let selector = LayerSelector(exclude: ["re:vision_tower.*"])
    #expect(throws: InvalidOption.self) { try selector.check(against: linears) }
    try selector.check(against: linears, carried: ["vision_tower.fc"])
    #expect(throws: InvalidOption.self) {
      try LayerSelector(include: ["re:vision_tower.*"]).check(against: linears, carried: ["vision_tower.fc"])
    }
  }

  @Test(arguments: [
    LayerSelector(exclude: ["*"]), LayerSelector(include: ["mlp.*"], exclude: ["re:.*mlp"]), LayerSelector(ignore: ["re:.*"]),
    LayerSelector(include: ["lm_head"], exclude: ["lm_*"]),
  ])
  func refusesToSelectNothing(selector: LayerSelector) throws {
    #expect(try #require(try error(selector)).reason.contains("nothing is left to work on"))
  }

  @Test func refusesABrokenExpression() throws {
    let error = try #require(try error(LayerSelector(exclude: ["re:("])))
    #expect(error.reason.contains("not a regular expression"))
  }

  @Test func aTiedModelMayExcludeAHeadItHasNot() throws {
    let tied = TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true")
    let linears = try Pipeline([]).plan(for: TinyModel.model(tied))
    #expect(!linears.contains { $0.name == "lm_head" })
    try LayerSelector(exclude: ["lm_head"]).check(against: linears)
    for pattern in ["re:.*lm_head", "lm_hea?", "embed_tokens", "re:.*embed_tokens$"] {
      try LayerSelector(exclude: [pattern]).check(against: linears)
    }
    for pattern in ["lm_head", "re:.*lm_head"] {
      let error = #expect(throws: InvalidOption.self) { try LayerSelector(include: [pattern]).check(against: linears) }
      #expect(error?.word == pattern && error?.reason.contains("tied to the embedding") == true)
    }
  }

  // MARK: Spelling

  @Test(arguments: [
    (#""down_proj""#, LayerSelector(include: ["down_proj"])), (#"["a", "b.*"]"#, LayerSelector(include: ["a", "b.*"])),
    (#"{"exclude": ["x"]}"#, LayerSelector(exclude: ["x"])), (#"{"include": ["a"]}"#, LayerSelector(include: ["a"])),
    (#"{"include": ["a"], "exclude": ["x"]}"#, LayerSelector(include: ["a"], exclude: ["x"])), ("{}", LayerSelector()),
  ])
  func decodes(json: String, expected: LayerSelector) throws {
    let decoded = try JSONDecoder().decode(LayerSelector.self, from: Data(json.utf8))
    #expect(decoded == expected)
    #expect(try JSONDecoder().decode(LayerSelector.self, from: JSONEncoder().encode(decoded)) == expected)
  }

  @Test(arguments: ["3", "[1]", #"{"include": "a"}"#, "true"])
  func refusesOtherSpellings(json: String) {
    #expect(throws: DecodingError.self) { try JSONDecoder().decode(LayerSelector.self, from: Data(json.utf8)) }
  }

  @Test func groupsKeepTheirOrderAndOnlySelectedLinears() throws {
    let block = try TinyModel.model().block(0)
    let groups = block.groups(LayerSelector(include: ["down_proj", "v_proj", "q_proj"]))
    #expect(groups == [InputGroup(["self_attn.q_proj", "self_attn.v_proj"]), InputGroup(["mlp.down_proj"])])
    #expect(block.groups(LayerSelector()) == block.inputGroups)
    let head = try TinyModel.model().head()
    #expect(head.groups(LayerSelector()).isEmpty)
    #expect(head.groups(LayerSelector(include: ["lm_head"])) == [InputGroup(["lm_head"])])
  }
}
