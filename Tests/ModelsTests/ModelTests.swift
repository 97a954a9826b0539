import CompressKit
import Foundation
import TestSupport
import Testing

struct ModelTests {
  private static let tied = TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true")

  @Test func blocksHaveTheirPlacesAndShapes() throws {
    let model = try TinyModel.model()
    #expect(model.places == [.embedding, .decoder(index: 0), .decoder(index: 1), .head])
    #expect(try model.places.map { try model.part($0).name } == ["model.embed_tokens", "model.layers.0", "model.layers.1", "head"])
    let block = try model.block(1)
    #expect(block.fullName(of: "mlp.down_proj") == "model.layers.1.mlp.down_proj")
    #expect(block["self_attn.k_proj"].weight.rows == 16)
    #expect(block["mlp.down_proj"].weight.columns == 64)
    #expect(block["self_attn.q_proj"].bias == nil)
    #expect(block.inputGroups.map(\.linears.count) == [3, 1, 2, 1])
    #expect(block["mlp.up_proj"].weight.dense()[3, 5] == TinyModel.element("model.layers.1.mlp.up_proj.weight", 3 * 32 + 5))
    #expect(block.norms["input_layernorm"]?[7] == TinyModel.element("model.layers.1.input_layernorm.weight", 7))
    #expect(model.carried.isEmpty && model.remarks.isEmpty)
    let head = try model.head()
    #expect(head.fullName(of: head.inputGroups[0].linears[0]) == "lm_head")
  }

  @Test(arguments: [
    "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight",
    "model.layers.0.post_attention_layernorm.weight",
  ])
  func aMissingTensorIsNamed(_ name: String) throws {
    var checkpoint = try EditableCheckpoint()
    checkpoint[name] = nil
    #expect(throws: CheckpointError.missingTensor(name: name)) { try checkpoint.model() }
  }

  @Test func aMissingBiasIsNamed() throws {
    let json = TinyModel.config.replacing("\"bos_token_id\":1", with: "\"attention_bias\":true")
    var checkpoint = try EditableCheckpoint(json)
    checkpoint["model.layers.0.self_attn.o_proj.bias"] = nil
    #expect(throws: CheckpointError.missingTensor(name: "model.layers.0.self_attn.o_proj.bias")) { try checkpoint.model() }
  }

  @Test func aWrongShapeIsNamed() throws {
    var checkpoint = try EditableCheckpoint()
    let name = "model.layers.0.self_attn.k_proj.weight"
    checkpoint[name] = Tensor([Float](repeating: 0, count: 1024), shape: [32, 32], dtype: .float32)
    #expect(throws: CheckpointError.wrongShape(tensor: name, expected: [16, 32], found: [32, 32])) { try checkpoint.model() }
    checkpoint = try EditableCheckpoint()
    checkpoint["model.norm.weight"] = Tensor([0], shape: [1], dtype: .float32)
    #expect(throws: CheckpointError.wrongShape(tensor: "model.norm.weight", expected: [32], found: [1])) { try checkpoint.model() }
  }

  @Test func integersAreNoWeights() throws {
    var checkpoint = try EditableCheckpoint()
    let name = "model.layers.0.mlp.gate_proj.weight"
    checkpoint[name] = Tensor(dtype: .int8, shape: [64, 32], integers: [Int8](repeating: 1, count: 2048))
    let model = try checkpoint.model()
    #expect(throws: CheckpointError.unusableType(tensor: name, dtype: "I8", use: "a matrix of floats")) {
      try model.block(0)
    }
    #expect(throws: Never.self) { try model.block(1) }
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func weightsThatAreNotFiniteAreRefused(_ bad: Float) throws {
    for (name, place) in [
      ("model.embed_tokens.weight", PartPlace.embedding), ("model.layers.1.mlp.down_proj.weight", .decoder(index: 1)),
      ("model.layers.0.input_layernorm.weight", .decoder(index: 0)), ("lm_head.weight", .head), ("model.norm.weight", .head),
    ] {
      for dtype in [DType.float32, .bfloat16] {
        var checkpoint = try EditableCheckpoint(dtype: dtype)
        let tensor = try #require(checkpoint[name])
        var values = tensor.floats()
        values[values.count - 1] = bad
        checkpoint[name] = Tensor(values, shape: tensor.shape, dtype: dtype)
        let model = try checkpoint.model()
        #expect(throws: CheckpointError.nonfiniteWeight(tensor: name)) { try model.part(place) }
      }
    }
  }

  @Test func anEqualHeadStaysTied() throws {
    var checkpoint = try EditableCheckpoint(Self.tied)
    #expect(checkpoint["lm_head.weight"] == nil)
    let alone = try checkpoint.model()
    #expect(alone.description.head == nil)
    checkpoint["lm_head.weight"] = checkpoint["model.embed_tokens.weight"]
    let model = try checkpoint.model()
    #expect(model.description.head == nil)
    #expect(model.remarks.isEmpty && model.carried.isEmpty)
    #expect(try model.head().linears.isEmpty)
    #expect(try model.logits(of: [1, 2, 3]) == alone.logits(of: [1, 2, 3]))
  }

  @Test func aDifferentHeadIsReadAsUntied() throws {
    var checkpoint = try EditableCheckpoint(Self.tied)
    let untied = try EditableCheckpoint()
    checkpoint["lm_head.weight"] = untied["lm_head.weight"]
    let model = try checkpoint.model()
    #expect(model.description.head == "lm_head")
    #expect(model.remarks.count == 1)
    #expect(try model.logits(of: [1, 2, 3]) == untied.model().logits(of: [1, 2, 3]))
  }

  @Test func tensorsOfNobodyAreCarried() throws {
    var checkpoint = try EditableCheckpoint()
    let scalar = Tensor([1], shape: [1], dtype: .float32)
    for name in ["vision.patch.weight", "model.layers.2.mlp.up_proj.weight", "extra"] { checkpoint[name] = scalar }
    checkpoint["model.layers.0.self_attn.rotary_emb.inv_freq"] = scalar
    #expect(try checkpoint.model().carried == ["vision.patch.weight", "model.layers.2.mlp.up_proj.weight", "extra"])
  }

  @Test func changingALinearChangesItsRevision() throws {
    var block = try TinyModel.model().block(0)
    let before = block["mlp.up_proj"].revision
    let (copy, other) = (block, block["mlp.gate_proj"].revision)
    block["mlp.up_proj"].weight = block["mlp.up_proj"].weight.dense()
    #expect(block["mlp.up_proj"].revision != before)
    #expect(copy["mlp.up_proj"].revision == before)
    #expect(block["mlp.gate_proj"].revision == other)
  }
}

struct DescriptionTests {
  private func describe(_ change: (inout JSON) -> Void) throws(CheckpointError) -> ModelDescription {
    var config = try ModelConfig(text: TinyModel.config.utf8)
    change(&config.json)
    return try ArchitectureCatalog.standard.describe(try ModelConfig(text: config.json.text().utf8))
  }

  private func option(_ change: (inout JSON) -> Void) -> String? {
    do throws(CheckpointError) {
      _ = try describe(change)
      return nil
    } catch {
      guard case .unsupportedOption(let option, _, _) = error else { return "\(error)" }
      return option
    }
  }

  @Test func anUnknownTypeIsRefusedWithTheKnownOnes() {
    #expect(throws: CheckpointError.unsupportedModel(type: "mamba", known: ArchitectureCatalog.standard.modelTypes)) {
      try describe { $0["model_type"] = .string("mamba") }
    }
  }

  @Test func whatTheForwardPassDoesNotComputeIsRefused() {
    #expect(option { _ in } == nil)
    for type in ["longrope", "nonsense"] {
      #expect(option { $0["rope_scaling"] = .object([.init("rope_type", .string(type)), .init("factor", .integer(2))]) } == "rope_scaling")
    }
    #expect(option { $0["rope_scaling"] = .object([.init("type", .string("linear"))]) } == "rope_scaling")
    #expect(option { $0["rope_scaling"] = .object([.init("type", .string("linear")), .init("factor", .integer(0))]) } == "rope_scaling")
    #expect(option { $0["head_dim"] = .integer(7) } == "head_dim")
    #expect(option { $0["head_dim"] = .integer(0) } == "head_dim")
    #expect(option { $0["hidden_size"] = .integer(33) } == "hidden_size")
    #expect(option { $0["num_key_value_heads"] = .integer(3) } == "num_key_value_heads")
    #expect(option { $0["hidden_act"] = .string("sparse") } == "hidden_act")
    #expect(option { $0["partial_rotary_factor"] = .double(0.4) } == "partial_rotary_factor")
    #expect(option { $0["rope_scaling"] = .null } == nil)
    #expect(option { $0["rope_scaling"] = .object([]) } == nil)
  }

  @Test func missingAndNonsensicalSizesAreRefused() {
    for key in ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"] {
      #expect(throws: CheckpointError.malformedConfiguration(path: "config.json", reason: "\"\(key)\" is missing")) {
        try describe { $0[key] = nil }
      }
      #expect(throws: CheckpointError.malformedConfiguration(path: "config.json", reason: "sizes must be positive")) {
        try describe { $0[key] = .integer(0) }
      }
    }
  }

  @Test func familiesHaveTheirDefaults() throws {
    func attention(_ type: String, _ change: (inout JSON) -> Void = { _ in }) throws -> AttentionDescription {
      let description = try describe {
        $0["model_type"] = .string(type)
        $0["hidden_size"] = .integer(256)
        $0["num_attention_heads"] = .integer(32)
        $0["num_key_value_heads"] = nil
        change(&$0)
      }
      return try #require(description.blocks[0].attention)
    }
    #expect(try attention("llama").keyValueHeads == 32)
    #expect(try attention("llama") { $0["num_key_value_heads"] = .null }.keyValueHeads == 32)
    #expect(try attention("mistral").keyValueHeads == 8)
    #expect(try attention("mistral").window == 4096)
    #expect(try attention("mistral") { $0["sliding_window"] = .null }.window == nil)
    #expect(try attention("qwen3").headSize == 128)
    #expect(try attention("qwen3").normalizesQueriesAndKeys)
    #expect(try attention("qwen2").headSize == 8)
    #expect(try attention("qwen2").hasProjectionBias && !attention("qwen2").hasOutputBias)
    #expect(try attention("qwen2") { $0["sliding_window"] = .integer(16) }.window == nil)
    #expect(try attention("llama") { $0["sliding_window"] = .integer(16) }.window == nil)
    #expect(try attention("llama") { $0["rope_theta"] = nil }.rotary?.base == 10_000)
    #expect(try describe { $0["rms_norm_eps"] = nil }.normEpsilon == 1e-6)
  }

  @Test func aCatalogIsExtendedByValue() throws {
    enum Mine: Architecture {
      static let modelTypes = ["mine", "llama"]
      static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
        ModelDescription(vocabularySize: 1, hiddenSize: 1, normEpsilon: 1, blocks: [])
      }
    }
    let catalog = ArchitectureCatalog.standard.adding(Mine.self)
    #expect(try catalog.describe(ModelConfig(text: "{\"model_type\":\"mine\"}".utf8)).vocabularySize == 1)
    #expect(try catalog.describe(ModelConfig(text: TinyModel.config.utf8)).vocabularySize == 1, "the added one wins")
    #expect(try ArchitectureCatalog.standard.describe(ModelConfig(text: TinyModel.config.utf8)).vocabularySize == 64)
  }
}
