import CompressKit
import Foundation
import TestSupport
import Testing

/// What configurations of Gemma 4 say in several ways, and models that are wrapped.
struct Gemma4Tests {
  private static let catalog = ArchitectureCatalog.standard

  private static func config(_ name: String, _ changes: [(String, JSON?)] = []) throws -> ModelConfig {
    var config = try ModelConfig(text: Families.configuration(name).utf8)
    for (key, value) in changes { config.json[key] = value }
    return config
  }

  /// The sizes of 26B-A4B, by the keys that its makers wrote.
  @Test func aReleasedMixture() throws {
    let layers = Array(repeating: "\"sliding_attention\"", count: 5).joined(separator: ",") + ",\"full_attention\""
    let text = """
      {"model_type":"gemma4","tie_word_embeddings":true,"text_config":{"model_type":"gemma4_text","vocab_size":262144,"hidden_size":2816,
       "intermediate_size":2112,"num_hidden_layers":6,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":256,"global_head_dim":512,
       "num_global_key_value_heads":2,"attention_k_eq_v":true,"hidden_size_per_layer_input":0,"num_kv_shared_layers":0,
       "use_double_wide_mlp":false,"sliding_window":1024,"layer_types":[\(layers)],"final_logit_softcapping":30.0,
       "enable_moe_block":true,"num_experts":128,"top_k_experts":8,"moe_intermediate_size":704,
       "use_bidirectional_attention":"vision","rms_norm_eps":1e-06,"max_position_embeddings":262144}}
      """
    let model = try Self.catalog.describe(try ModelConfig(text: text.utf8))
    #expect(model.isTied && model.logitCap == 30 && model.embeddingScale == Float(2816).squareRoot())
    let (first, last) = (try #require(model.blocks.first), try #require(model.blocks.last))
    let shapes = (first: first.linearShapes, last: last.linearShapes)
    #expect(shapes.first["self_attn.q_proj"]?.rows == 4096 && shapes.first["self_attn.v_proj"]?.rows == 2048)
    #expect(shapes.last["self_attn.q_proj"]?.rows == 8192 && shapes.last["self_attn.k_proj"]?.rows == 1024)
    #expect(shapes.last["self_attn.v_proj"] == nil && shapes.last["self_attn.o_proj"]?.columns == 8192)
    #expect(first.attention?.window == 1024 && last.attention?.window == nil && last.attention?.scale == 1)
    #expect(first.attention?.rotary?.base == 10_000 && first.attention?.rotary?.scaling == RotaryDescription.Scaling.none)
    #expect(last.attention?.rotary?.base == 1_000_000 && last.attention?.rotary?.scaling == .proportional(share: 0.25, factor: 1))
    #expect(shapes.first["mlp.down_proj"]?.columns == 2112 && shapes.first["experts.127.down_proj"]?.columns == 704)
    let stored = Dictionary(uniqueKeysWithValues: first.parameters.map { ($0.name, $0.shape) })
    #expect(stored == ["router.per_expert_scale": [128], "layer_scalar": [1]])
    #expect(model.tensorShapes.contains { $0.name == "model.layers.0.router.scale" && $0.shape == [2816] })
    #expect(model.tensorShapes.contains { $0.name == "model.layers.5.experts.gate_up_proj" && $0.shape == [128, 1408, 2816] })
  }

  /// transformers saves what differs from layer to layer as a list of layers.
  @Test func bothSpellingsOfSizesAreOneModel() throws {
    let sizes = JSON.object([.init("head_dim", .integer(16)), .init("num_key_value_heads", .integer(1))])
    let saved = try Self.config(
      "gemma4",
      [
        ("global_head_dim", nil), ("num_global_key_value_heads", nil),
        ("per_layer_config", .object([.init("0", sizes), .init("2", sizes)])),
      ])
    let description = try Self.catalog.describe(saved)
    #expect(try description == Self.catalog.describe(Self.config("gemma4")))
    // Layers keep what is theirs under other numbers.
    var smaller = description
    smaller.blocks.removeFirst()
    for index in smaller.blocks.indices { smaller.blocks[index].prefix = description.blocks[index].prefix }
    let written = try Self.catalog.configuration(of: smaller, keeping: [1, 2], in: saved)
    #expect(written.json["per_layer_config"] == .object([.init("1", sizes)]))
    #expect(try Self.catalog.describe(written) == smaller)
    // The last layer sees everything, whatever is listed.
    var cut = description
    cut.blocks.removeLast()
    #expect(throws: CheckpointError.self) { try Self.catalog.configuration(of: cut, keeping: [0, 1], in: saved) }
  }

  /// For readers that take E2B's ways for what is absent, and for those that do not know the list of layers.
  @Test(arguments: ["gemma4", "gemma4-moe", "gemma4-unified"]) func everyKeyIsWrittenOut(_ name: String) throws {
    let config = try Self.config(name)
    let spelled = try Self.catalog.spelledOut(config, isTied: true)
    let text = spelled.json["text_config"] ?? spelled.json
    let full = name == "gemma4-unified" ? 24 : 16
    #expect(text["num_kv_shared_layers"]?.integer == 0 && text["use_double_wide_mlp"]?.bool == false)
    #expect(text["global_head_dim"]?.integer == (name == "gemma4-unified" ? 16 : full) && text["head_dim"]?.integer == 8)
    #expect(text["attention_k_eq_v"]?.bool == (name != "gemma4-unified") && text["layer_types"]?.elements?.count == 3)
    #expect(try Self.catalog.describe(spelled) == Self.catalog.describe(config))
    #expect(try Self.catalog.describe(spelled).blocks[2].attention?.headSize == full)
    var bare = config
    if bare.json["text_config"] == nil { bare.json["rope_parameters"] = nil } else { bare.json["text_config"]?["rope_parameters"] = nil }
    #expect(try Self.catalog.describe(bare) == Self.catalog.describe(config))
  }

  @Test func whatIsMissingIsNamed() throws {
    func refusal(_ key: String, _ value: JSON?) throws -> String {
      do {
        _ = try Self.catalog.describe(Self.config("gemma4", [(key, value)]))
        return ""
      } catch { return "\(error)" }
    }
    // Silence about it means 256.
    for value in [JSON.integer(256), nil] {
      #expect(try refusal("hidden_size_per_layer_input", value).contains("inputs for every layer, as of E2B and E4B, are not computed"))
    }
    #expect(try refusal("num_kv_shared_layers", .integer(1)).contains("keys and values of earlier ones"))
  }

  /// A language model inside a larger one: its names are longer, and what is beside it is carried along.
  @Test func theWholeModelIsRead() throws {
    let config = try Self.config("gemma4-moe")
    let tensors = try TinyModel.tensors(config).map { named in
      NamedTensor(name: named.name.replacing("model.", with: "model.language_model."), tensor: named.tensor)
    }
    let tower = NamedTensor(name: "model.vision_tower.encoder.weight", tensor: Tensor([1, 2], shape: [1, 2], dtype: .float32))
    let model = try Model(Checkpoint(directory: Places.root, config: config, tensors: MemoryTensorSource(tensors + [tower])))
    #expect(model.carried == [tower.name])
    let tokens = TinyModel.sequences(1, length: 24)[0]
    #expect(try model.logits(of: tokens) == Families.model("gemma4-moe").logits(of: tokens))
    let names = try PlainFormat().encode(try model.block(1)).map(\.name)
    for part in ["router.scale", "router.per_expert_scale", "layer_scalar", "experts.gate_up_proj"] {
      #expect(names.contains("model.language_model.layers.1." + part))
    }
  }
}
