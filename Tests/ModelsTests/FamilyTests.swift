import CompressKit
import Foundation
import TestSupport
import Testing

/// What derives from a description, for every family.
struct FamilyTests {
  private static let tokens = TinyModel.sequences(1, length: 24)[0]

  private func outputs(of model: Model, _ change: @escaping @Sendable (inout Block) throws -> Void) throws -> Matrix {
    try model.changingBlocks(change).outputs(of: Self.tokens)
  }

  @Test(arguments: Families.names) func everyScaleMayMove(_ name: String) throws {
    let model = try Families.model(name)
    let expected = try model.outputs(of: Self.tokens)
    let count = model.description.blocks.map(\.scalings.count).max() ?? 0
    #expect(count > 0)
    for index in 0..<count {
      let scaled = try outputs(of: model) { block in
        let scalings = block.description.scalings
        guard index < scalings.count else { return }
        var random = KeyedRandomness(seed: 3, key: "\(block.name) \(index)")
        let before = block
        let scale = (0..<scalings[index].channels).map { _ in Float.random(in: 0.5...2, using: &random) }
        scalings[index].apply(scale, to: &block)
        let changed = block.linears.keys.filter { block[$0].revision != before[$0].revision }
        #expect(changed.count >= scalings[index].consumers.count)
      }
      #expect(scaled.distance(to: expected) < 1e-4, "scaling \(index)")
    }
  }

  @Test(arguments: Families.names) func groupsCoverEveryLinearOnce(_ name: String) throws {
    for block in try Families.model(name).description.blocks {
      let all = block.inputGroups.flatMap(\.linears)
      #expect(Set(all) == Set(block.linearShapes.keys) && all.count == block.linearShapes.count)
      for group in block.inputGroups { #expect(Set(group.linears.map { block.linearShapes[$0]!.columns }).count == 1) }
      for (index, scaling) in block.scalings.enumerated() {
        #expect(block.inputGroups.contains(scaling.input), "scaling \(index)")
        for consumer in scaling.consumers { #expect(block.linearShapes[consumer]?.columns == scaling.columns) }
      }
      let readers = Set(block.residualReaders.flatMap(\.group.linears))
      // Between the two are only linears inside a mixer.
      let inner = all.filter { !readers.contains($0) && !block.residualWriters.contains($0) }
      #expect(readers.isDisjoint(with: block.residualWriters) && (inner.isEmpty || block.mixers[0] is LatentAttention))
    }
  }

  @Test(arguments: Families.names) func aKeptStateGoesOnWhereItWas(_ name: String) throws {
    let model = try Families.model(name)
    let hidden = Matrix.random(rows: 17, columns: model.description.hiddenSize, key: "hidden")
    for index in model.description.blocks.indices {
      let block = try model.block(index)
      let description = block.description
      let stages = block.inputGroups.count
      let prepared = PreparedBlock(block, positions: 17)
      let whole = try prepared.forward(hidden)
      let program = description.program
      for (stage, stop) in program.stops.enumerated() where program.anchor(ofStop: stop) == stop {
        var state = try prepared.start(hidden)
        while state.stage < stage { try prepared.advance(&state) }
        let kept = program.kept(atStop: stop)
        let after = PreparedBlock(block, stages: stage..<stages, positions: 17)
        var resumed = try after.resume(stage: stage, state.values.filter { kept.contains($0.key) })
        #expect(resumed.input == state.input)
        while resumed.input != nil { try after.advance(&resumed) }
        #expect(resumed.residual == whole, "from stage \(stage)")
      }
    }
  }

  /// The way past other experts leads to the same inputs.
  @Test(arguments: Families.allMixtures) func expertsAreReachedFromTheRouter(_ name: String) throws {
    let block = try Families.model(name).block(1)
    let hidden = Matrix.random(rows: 17, columns: 32, key: "hidden")
    let prepared = PreparedBlock(block, positions: 17)
    var state = try prepared.start(hidden)
    let mixture = try #require(block.description.feedForward?.mixture)
    let group = try #require(block.inputGroups.firstIndex { $0.linears.contains(mixture.router) })
    while state.stage < group { try prepared.advance(&state) }
    let router = state
    var seen = 0
    while state.stage < block.inputGroups.count {
      if state.stage > group {
        let skipped = try prepared.skip(to: state.stage, from: router)
        #expect(skipped.input == state.input && skipped.inputTokens == state.inputTokens)
        #expect(state.input?.rows == state.inputTokens?.count && state.inputResidual.rows == state.input?.rows)
        seen += state.inputTokens?.count ?? 0
      }
      guard state.input != nil else { break }
      try prepared.advance(&state)
    }
    #expect(seen == 2 * 17 * (mixture.expertsPerToken + (mixture.shared == nil || mixture.ownNorms != nil ? 0 : 1)))
  }

  @Test func normsAreWrittenAsTheyWereRead() throws {
    let model = try Families.model("gemma2", dtype: .bfloat16)
    for place in model.places {
      var part = try model.part(place)
      for (name, weight) in part.norms.weights {
        let module = part.fullName(ofNorm: name)
        let stored = weight.indices.map { DType.bfloat16.rounded(TinyModel.element(module + ".weight", $0)) }
        #expect(part.norms.stored(name) == stored && weight == stored.map { $0 + 1 })
        part.norms[name] = weight.map { _ in 1 }
        #expect(part.norms.stored(name).allSatisfy { $0 == 0 })
      }
    }
  }

  /// Hub files of GPT-2 leave the common prefix out; Gemma 3 with a vision tower has another before it, and the tower is carried along.
  @Test func prefixesMayBeMissingOrLonger() throws {
    func renamed(_ name: String, _ change: (String) -> String, _ more: [NamedTensor] = []) throws -> Model {
      let config = try ModelConfig(text: Families.configuration(name).utf8)
      let tensors = try TinyModel.tensors(config).map { NamedTensor(name: change($0.name), tensor: $0.tensor) }
      return try Model(Checkpoint(directory: Places.root, config: config, tensors: MemoryTensorSource(tensors + more)))
    }
    let buffer = NamedTensor(name: "h.0.attn.bias", tensor: Tensor([1], shape: [1, 1, 1, 1], dtype: .float32))
    let bare = try renamed("gpt2", { $0.replacing("transformer.", with: "") }, [buffer])
    #expect(bare.carried.isEmpty)
    #expect(try bare.logits(of: Self.tokens) == Families.model("gpt2").logits(of: Self.tokens))
    // Untied, the head stands inside the language model, too.
    let nested = try renamed("ministral", { "language_model." + $0 })
    #expect(nested.carried.isEmpty && nested.description.head == "language_model.lm_head")
    #expect(try nested.logits(of: Self.tokens) == Families.model("ministral").logits(of: Self.tokens))
    let tower = NamedTensor(name: "vision_tower.weight", tensor: Tensor([1, 2], shape: [1, 2], dtype: .float32))
    let whole = try renamed("gemma3", { "language_model." + $0 }, [tower])
    #expect(whole.carried == ["vision_tower.weight"])
    #expect(try whole.logits(of: Self.tokens) == Families.model("gemma3").logits(of: Self.tokens))
    #expect(try whole.block(1).name == "language_model.model.layers.1")
    // Memory is that of one block, whatever stands before its name.
    func memory(_ model: Model) throws -> Int {
      let pipeline = Pipeline([])
      return try ResourceEstimate(
        of: model, plan: pipeline.plan(for: model), pipeline: pipeline, calibration: [], memoryLimit: 1 << 30, otherBytes: 0
      ).fixedMemory
    }
    #expect(try memory(whole) == memory(Families.model("gemma3")))
  }

  @Test(arguments: [
    ("opt", "do_layer_norm_before", JSON.bool(false)), ("opt", "word_embed_proj_dim", .integer(16)), ("falcon-7b", "alibi", .bool(true)),
    ("stablelm", "qk_layernorm", .bool(true)), ("olmoe", "clip_qkv", .double(8)), ("gemma3", "use_bidirectional_attention", .bool(true)),
    ("qwen3.5", "hidden_act", .string("gelu")), ("granite-hybrid", "hidden_act", .string("gelu")),
    ("falcon-h1", "hidden_act", .string("gelu")), ("nemotron-h", "mamba_hidden_act", .string("gelu")),
    ("deepseek-v3", "scoring_func", .string("softmax")), ("deepseek-v2", "scoring_func", .string("sigmoid")),
    ("gpt2", "add_cross_attention", .bool(true)), ("mixtral", "num_experts_per_tok", .integer(5)),
    ("bert", "is_decoder", .bool(true)), ("bert", "position_embedding_type", .string("relative_key")),
    ("bert", "hidden_act", .string("mish")), ("smollm3", "no_rope_layers", .array([.integer(1)])),
    ("phi3", "partial_rotary_factor", .double(0.4)), ("phimoe", "num_experts_per_tok", .integer(3)),
    ("phimoe", "router_jitter_noise", .double(-1)), ("hunyuan-moe", "num_experts", .array([.integer(4), .integer(8)])),
    ("hunyuan-moe", "moe_topk", .array([.integer(2)])), ("hunyuan-moe", "num_shared_expert", .integer(2)),
    ("llama4", "layer_types", .array(Array(repeating: .string("sliding_attention"), count: 4))),
    ("llama4", "no_rope_layers", .array([.integer(1)])), ("bloom", "apply_residual_connection_post_layernorm", .bool(true)),
    ("glm4-moe-lite", "mlp_layer_types", .array([.string("dense")])),
    ("gemma4", "hidden_size_per_layer_input", .integer(8)), ("gemma4", "num_kv_shared_layers", .integer(1)),
    ("gemma4", "use_bidirectional_attention", .string("all")), ("gemma4", "global_head_dim", .integer(15)),
    ("gemma4", "num_global_key_value_heads", .integer(3)), ("gemma4", "enable_moe_block", .bool(true)),
    ("gemma4", "per_layer_config", .object([.init("0", .object([.init("sliding_window", .integer(4))]))])),
    ("gemma4", "per_layer_config", .object([.init("3", .object([.init("head_dim", .integer(8))]))])),
    ("mpt", "no_bias", .bool(false)), ("mpt", "logit_scale", .double(0.5)), ("mpt", "expansion_ratio", .integer(2)),
  ])
  func whatIsNotComputedIsRefused(_ name: String, _ key: String, _ value: JSON) throws {
    var config = try ModelConfig(text: Families.configuration(name).utf8)
    config.json[key] = value
    do throws(CheckpointError) {
      _ = try ArchitectureCatalog.standard.describe(config)
      Issue.record("\(name) with \(key) was described")
    } catch {
      guard case .unsupportedOption(option: key, value: _, reason: _) = error else { throw error }
    }
  }
}
