import CompressKit
import Foundation
import TestSupport
import Testing

struct CacheCompressionTests {
  private func pass(_ options: String) throws -> CacheCompression {
    try #require(try Recipe(yaml: "passes: [ { kv_cache: \(options) } ]", file: "r.yaml", passes: .standard).passes[0] as? CacheCompression)
  }

  @Test func aSecondPolicyIsRefused() throws {
    let recipe = try Recipe(
      yaml: "passes: [ { kv_cache: { scheme: kivi, bits: 2 } }, { kv_cache: { scheme: fp8_dynamic } } ]", file: "r.yaml", passes: .standard)
    let error = #expect(throws: PipelineError.self) { try Pipeline(recipe.passes).plan(for: try TinyModel.model()) }
    #expect("\(error!)".contains("takes its place"))
  }

  @Test func optionsBecomePolicies() throws {
    let kivi = try pass("{ scheme: kivi, key_bits: 4, value_bits: 2 }").policy(headSize: 64)
    #expect(kivi.key == CacheNumbers(bits: 4, axis: .channel, groupSize: 32) && kivi.residual == 128)
    #expect(kivi.value == CacheNumbers(bits: 2, axis: .token, groupSize: 32) && !kivi.isRotated && kivi.eviction == nil)
    #expect(kivi.description == "keys int4 channel g32, values int2 token g32, newest 128 as they are")
    let rotated = try pass("{ scheme: rotated, bits: 3, residual: 0, group_size: 128 }").policy(headSize: 64)
    #expect(rotated.isRotated && rotated.key == CacheNumbers(bits: 3, axis: .token, groupSize: 64) && rotated.key == rotated.value)
    let fp8 = try pass("{ scheme: fp8_dynamic }").policy(headSize: 64)
    #expect(fp8.key == CacheNumbers(grid: .float, bits: 8, axis: .token, groupSize: 64) && fp8.residual == 0)
    #expect(try pass("{ scheme: int8 }").policy(headSize: 64) == CachePolicy())
    let methods: [(String, CacheEviction)] = [
      ("streaming", CacheEviction(method: .streaming, budget: 64, sinks: 4, recent: 60)),
      ("h2o", CacheEviction(method: .h2o, budget: 64, sinks: 0, recent: 32)),
      ("snapkv", CacheEviction(method: .snapkv, budget: 64, sinks: 0, recent: 32)),
      ("tova", CacheEviction(method: .tova, budget: 64, sinks: 0, recent: 1)),
      ("expected_attention", CacheEviction(method: .expectedAttention, budget: 64, sinks: 4, recent: 0)),
    ]
    for (name, expected) in methods {
      #expect(try pass("{ scheme: none, eviction: { method: \(name), budget: 64 } }").policy(headSize: 64).eviction == expected)
    }
    let own = try pass("{ scheme: int, eviction: { method: tova, sinks: 2, recent: 5, positions: consecutive } }").policy(headSize: 64)
    #expect(own.eviction == CacheEviction(method: .tova, budget: 256, sinks: 2, recent: 5, positions: .consecutive))
  }

  @Test(arguments: [
    ("{ bits: 9 }", "1 to 8"), ("{ scheme: kivi, key_bits: 0 }", "1 to 8"), ("{ scheme: none }", "does nothing"),
    ("{ scheme: kivi, group_size: 0 }", "positive"), ("{ scheme: kivi, residual: -1 }", "number of tokens"),
    ("{ scheme: kivi, eviction: { method: h2o } }", "scheme int or rotated"), ("{ eviction: { method: h2o, budget: 0 } }", "at least one"),
    ("{ eviction: { method: h2o, budget: 8, sinks: 5, recent: 4 } }", "no room"),
    ("{ eviction: { method: snapkv, positions: consecutive } }", "original positions"),
    ("{ scheme: rotated, eviction: { method: streaming, positions: consecutive } }", "Hadamard"),
    ("{ scheme: kiwi }", "kiwi"), ("{ evict: h2o }", "evict"),
  ])
  func whatCannotBeIsRefused(options: String, word: String) throws {
    let error = #expect(throws: RecipeError.self) { try pass(options) }
    #expect("\(try #require(error))".contains(word), "\(error!)")
  }

  private func sweep(_ options: String, _ model: Model) async throws -> (blocks: [Block], report: Report) {
    actor Sink: PartSink {
      var parts: [any ModelPart] = []
      func append(_ part: any ModelPart) { parts.append(part) }
    }
    let sink = Sink()
    let report = try await Pipeline([pass(options)]).run(
      on: model, options: SweepOptions(calibration: TinyModel.sequences(2, length: 16)), into: sink)
    return (await sink.parts.decoders, report)
  }

  @Test func blocksCarryThePolicyAndTheReportSaysSo() async throws {
    let (blocks, report) = try await sweep("{ scheme: kivi, bits: 2, group_size: 8, residual: 4 }", try TinyModel.model())
    #expect(blocks.count == 2)
    for block in blocks {
      #expect(block.cachePolicy == (try pass("{ scheme: kivi, bits: 2, group_size: 8, residual: 4 }").policy(headSize: 8)))
      let record = try #require(report.layers.first { $0.layer == block.name })
      #expect(record.metrics["bits_per_key"] == 6 && record.metrics["bits_per_value"] == 6)
      #expect(record.scheme?.contains("int2 channel g8") == true)
    }
  }

  @Test func fixedScalesMayStandBesideAnEviction() async throws {
    let (blocks, _) = try await sweep("{ scheme: fp8, eviction: { method: streaming, budget: 8 } }", try TinyModel.model())
    #expect(blocks[0].cache != nil && blocks[0].cachePolicy?.eviction?.budget == 8 && blocks[0].cachePolicy?.key == nil)
    var caches = [CachedBlock(blocks[0], positions: 20).makeCache()]
    _ = try CachedBlock(blocks[0], positions: 20).forward(.random(rows: 20, columns: 32, key: "hidden"), caches: &caches)
    #expect(caches[0].keysAndValues?.held == 8 && caches[0].byteCount == 2 * 2 * 8 * 8)
  }

  @Test func groupsThatDoNotDivideAHeadAreRefused() async throws {
    await #expect(throws: PipelineError.self) { try await sweep("{ scheme: int, group_size: 3 }", try TinyModel.model()) }
  }

  /// Positions that are more than a rotation stand in the way of some evictions, and say so.
  @Test(arguments: [
    ("bloom", "{ scheme: none, eviction: { method: h2o, budget: 8 } }", "none can be given up"),
    ("hunyuan", "{ scheme: none, eviction: { method: streaming, budget: 8, positions: consecutive } }", "norms behind the rotation"),
    ("hunyuan", "{ scheme: none, eviction: { method: expected_attention, budget: 8 } }", "norms behind the rotation"),
    ("ministral3", "{ scheme: none, eviction: { method: expected_attention, budget: 8 } }", "queries that grow along the sequence"),
  ])
  func evictionsThatPositionsForbidAreRefused(family: String, options: String, words: String) async throws {
    let error = await #expect(throws: PipelineError.self) { try await sweep(options, try Families.model(family)) }
    #expect("\(try #require(error))".contains(words), "\(String(describing: error))")
  }

  @Test(arguments: ["hunyuan", "ministral3", "llama4"]) func othersGiveTokensUpAllTheSame(family: String) async throws {
    let (blocks, _) = try await sweep("{ scheme: none, eviction: { method: h2o, budget: 8 } }", try Families.model(family))
    var caches = [CachedBlock(blocks[0], positions: 20).makeCache()]
    _ = try CachedBlock(blocks[0], positions: 20).forward(.random(rows: 20, columns: 32, key: "hidden"), caches: &caches)
    #expect(caches[0].keysAndValues?.held == 8)
  }

  // MARK: Running through caches

  private static let models = [
    TinyModel.config, TinyModel.config.replacing("\"llama\"", with: "\"mistral\",\"sliding_window\":9"),
    TinyModel.config.replacing("\"llama\"", with: "\"qwen3\",\"head_dim\":8"),
  ]

  @Test(arguments: models)
  func withoutAPolicyCachesChangeNothing(config: String) throws {
    let block = try TinyModel.model(config).block(1)
    let hidden = Matrix.random(rows: 50, columns: 32, key: "hidden")
    let expected = try PreparedBlock(block, positions: 50).forward(hidden)
    for piece in [1, 7, 50, 64] {
      let (states, bytes) = try CachedBlock(block, positions: 50).run([hidden, hidden], piece: piece)
      for state in states { #expect(zip(state.elements, expected.elements).allSatisfy { abs($0 - $1) < 1e-5 * max(1, abs($1)) }) }
      #expect(bytes == 2 * CachedBlock.byteCount(of: block, tokens: 50))
    }
  }

  @Test(arguments: [QuantizationScheme.Grid.integer, .float])
  func fixedScalesAreWhatThePlainForwardPassRounds(grid: QuantizationScheme.Grid) throws {
    var block = try TinyModel.model().block(0)
    block.cache = CacheQuantization(key: CacheScale(grid: grid, amax: 3), value: CacheScale(grid: grid, amax: 2))
    let hidden = Matrix.random(rows: 33, columns: 32, key: "hidden")
    let expected = try PreparedBlock(block, positions: 33).forward(hidden)
    // A key on the edge between two codes may fall either way where sums are added in another order.
    let (states, bytes) = try CachedBlock(block, positions: 33).run([hidden], piece: 33)
    #expect(states[0].largestDifference(from: expected) < 1e-5)
    #expect(bytes == 33 * 2 * 2 * 8 && bytes == CachedBlock.byteCount(of: block, tokens: 33))
  }

  // MARK: The file

  @Test func policiesSurviveInTheirFile() throws {
    try Places.withTemporaryDirectory { directory in
      #expect(try CachePolicyFile(in: directory) == nil)
      let policies =
        QuantizedCacheTests.policies + [
          CachePolicy(eviction: CacheEviction(method: .expectedAttention, budget: 9, sinks: 1, recent: 2))
        ]
      let layers = Dictionary(uniqueKeysWithValues: policies.enumerated().map { ("model.layers.\($0)", $1) })
      let path = directory.appending(path: CachePolicyFile.name)
      try Data(CachePolicyFile(layers: layers).json.utf8).write(to: path)
      #expect(try CachePolicyFile(in: directory)?.layers == layers)

      let tiny = try TinyModel.checkpoint()
      func open() throws -> Model { try Model(Checkpoint(directory: directory, config: tiny.config, tensors: tiny.tensors)) }
      func refusal() -> String { do { _ = try open() } catch { return "\(error)" }; return "" }
      #expect(refusal().contains("no block model.layers.10"))
      try Data(CachePolicyFile(layers: ["model.layers.1": .byToken(4, group: 8)]).json.utf8).write(to: path)
      #expect(try open().block(0).cachePolicy == nil)
      #expect(try open().block(1).cachePolicy == .byToken(4, group: 8))
      try Data(CachePolicyFile(layers: ["model.layers.1": .byToken(4, group: 5)]).json.utf8).write(to: path)
      #expect(refusal().contains("groups of 5"))
      for text in ["{\"version\":2,\"layers\":{}}", "{\"layers\":3}", ""] {
        try Data(text.utf8).write(to: path)
        #expect(refusal().contains("kv_cache.json"))
      }
    }
  }
}
