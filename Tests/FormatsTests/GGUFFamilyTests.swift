import CompressKit
import Foundation
import TestSupport
import Testing

/// Models of every family that GGUF files hold: written, read again, the same; what llama.cpp's layout cannot hold is named.
struct GGUFFamilyTests {
  /// A family's tiny model, with some keys of its configuration changed.
  private static func config(_ name: String, _ changes: [(String, JSON)]) throws -> String {
    var json = try #require(try Families.fixture(name)["config"])
    for (key, value) in changes { json[key] = value.isNull && key != "sliding_window" ? nil : value }
    return json.text()
  }

  private static let full = JSON.array([.string("full_attention"), .string("full_attention")])

  /// Fixtures that llama.cpp has words for, and how others have to be changed for that.
  private static let written: [(name: String, changes: [(String, JSON)])] = [
    ("arcee", []), ("bloom", []), ("cohere", [("tie_word_embeddings", .bool(true))]), ("cohere2", []),
    ("exaone4", [("sliding_window", .null), ("layer_types", full)]), ("falcon-40b", []),
    ("falcon-40b", [("num_ln_in_parallel_attn", .integer(1))]), ("falcon-7b", []), ("gemma", []),
    ("gemma2", [("query_pre_attn_scalar", .integer(16))]), ("gemma3", []), ("gemma3", [("rope_local_base_freq", .double(5000))]),
    ("glm4", []),
    ("gpt-neox", []), ("gpt-neox-serial", [("attention_bias", .bool(true))]), ("gpt-oss", []), ("gpt2", []), ("granite", []),
    ("granite", [("logits_scaling", .double(6)), ("embedding_multiplier", .double(12.1))]), ("granite-moe", []), ("ministral3", []),
    ("mixtral", []), ("mpt", []), ("nemotron", []), ("olmo2", []), ("olmo3", []), ("olmoe", [("num_key_value_heads", .integer(4))]),
    ("phi3", [("sliding_window", .null)]), ("phi3-longrope", []), ("phi3-partial", []), ("qwen2-moe", []),
    ("qwen3-moe", [("mlp_only_layers", .array([]))]), ("seed-oss", []),
    ("smollm3", [("no_rope_layers", .array([.integer(1), .integer(1)]))]), ("stablelm", []), ("stablelm-parallel", []),
    ("starcoder2", [("sliding_window", .null)]), ("llama-yarn", []), ("llama-yarn-scales", []),
  ]

  /// YaRN's gain goes through a division and back.
  private static let rounds = ["llama-yarn-scales", "ministral3", "olmo3"]

  private func perplexity(_ model: Model) throws -> Double {
    let tokens = TinyModel.sequences(1, length: 32)[0]
    return try Evaluator(window: 32).evaluate(model, on: tokens).perplexity.negativeLogLikelihood
  }

  @Test(arguments: written.indices, [DType.float32, .bfloat16]) func aModelIsTheSameAgain(_ index: Int, _ dtype: DType) async throws {
    let (name, changes) = Self.written[index]
    let original = try TinyModel.checkpoint(try Self.config(name, changes), dtype: dtype)
    let model = try Model(original)
    let parts = try model.places.map { try model.part($0) }
    try await withGGUF(parts, original.config) { checkpoint in
      let again = try Model(checkpoint)
      #expect(again.carried.isEmpty)
      #expect(again.description.blocks.count == model.description.blocks.count && again.description.isTied == model.description.isTied)
      for (place, part) in zip(model.places, parts) {
        let read = try again.part(place)
        #expect(Set(read.linears.keys) == Set(part.linears.keys))
        for (linear, expected) in part.linears {
          #expect(read[linear].weight.dense() == expected.weight.dense(), "\(name) \(place) \(linear)")
          #expect(read[linear].bias == expected.bias, "\(name) \(place) \(linear)")
        }
        #expect(read.norms.weights == part.norms.weights && read.norms.biases == part.norms.biases, "\(name) \(place)")
        let others = (read.otherTensors.map { $0.tensor.floats() }, part.otherTensors.map { $0.tensor.floats() })
        #expect(others.0 == others.1, "\(name) \(place)")
      }
      let (expected, found) = (try perplexity(model), try perplexity(again))
      #expect(
        Self.rounds.contains(name) ? abs(found / expected - 1) < 1e-6 : found == expected, "\(name) \(dtype): \(found), not \(expected)")
    }
  }

  /// Experts in one tensor, fused matrices in another order, matrices that the family stores the other way round: blocks keep their bytes.
  @Test(arguments: ["mixtral", "granite-moe", "gpt-oss", "qwen2-moe", "gpt2", "gpt-neox", "falcon-40b", "bloom", "phi3-partial", "gemma3"])
  func blocksAreTheSameAgain(_ name: String) async throws {
    let original = try TinyModel.checkpoint(try Families.configuration(name))
    let model = try Model(original)
    let parts = try model.places.map { place in
      var part = try model.part(place)
      for linear in part.linears.keys where !part.isNamedOnly(linear) {
        part[linear].weight = BlockQuantizedMatrix(part[linear].weight.dense(), as: .q8_0)
      }
      return part
    }
    try await withGGUF(parts, original.config) { checkpoint in
      let again = try Model(checkpoint)
      for (place, part) in zip(model.places, parts) {
        let read = try again.part(place)
        for (linear, expected) in part.linears where !part.isNamedOnly(linear) {
          #expect(read[linear].weight as? BlockQuantizedMatrix == expected.weight as? BlockQuantizedMatrix, "\(place) \(linear)")
        }
      }
      // Routers and positions stay as they are; the file is of the type of all else.
      let file = try GGUFFile(checkpoint.directory.appending(path: GGUFWriter.fileName))
      for (tensor, type) in file.names.map({ ($0, file.info($0)?.typeName) }) where tensor.contains("ffn_gate_inp") {
        #expect(type == "F32", "\(tensor)")
      }
    }
  }

  @Test func expertsOfOneLayerAreOfOneType() async throws {
    let original = try TinyModel.checkpoint(try Families.configuration("mixtral"))
    let model = try Model(original)
    var parts = try model.places.map { try model.part($0) }
    let odd: LinearName = "block_sparse_moe.experts.1.w2"
    parts[1][odd].weight = BlockQuantizedMatrix(parts[1][odd].weight.dense(), as: .q8_0)
    let error = await #expect(throws: (any Error).self) { try await withGGUF(parts, original.config) { _ in } }
    #expect("\(try #require(error))".contains("blk.0.ffn_down_exps.weight holds all experts of a layer in one type"))
  }

  // MARK: Refusals

  private static let refused: [(name: String, changes: [(String, JSON)], words: String)] = [
    ("gemma2", [], "blocks[0].mixers.attention.scale"), ("cohere", [], "no head besides the embedding"),
    ("exaone4", [], "attention.window"), ("phi3", [], "no sliding window"), ("starcoder2", [], "no sliding window"),
    ("smollm3", [], "blocks[1].mixers.attention.rotary"), ("gpt2-inverse-layers", [], "activation = gelu"),
    ("gpt2-inverse-layers", [("activation_function", .string("gelu_new"))], "blocks[1].mixers.attention.scale"),
    ("gpt-neox-serial", [], "biases on all its linears"), ("falcon-serial", [], "bias on attention's output"),
    ("olmoe", [], "a key-value head for every query head"), ("qwen3-moe", [], "model.layers.0.mlp.down_proj.weight"),
    ("qwen2-moe", [("norm_topk_prob", .bool(true))], "mixture.normalizesWeights"),
    ("qwen2-moe", [("tie_word_embeddings", .bool(true))], "a head of its own"),
    ("qwen2-moe", [("head_dim", .integer(16))], "add up to the hidden size"),
    ("gemma", [("tie_word_embeddings", .bool(false))], "no head besides the embedding"),
    ("gemma3", [("hidden_activation", .string("silu"))], "activation = silu"),
    ("granite", [("attention_bias", .bool(true)), ("partial_rotary_factor", .double(0.5))], "whole heads"),
    ("gpt2", [("activation_function", .string("relu"))], "activation = relu"),
    ("gpt-oss", [("swiglu_limit", .double(5))], "activation"), ("glm4", [("attention_bias", .bool(false))], ""),
    ("granite", [("rope_scaling", .object([.init("rope_type", .string("dynamic")), .init("factor", .double(2))]))], "rotary scaling"),
    ("ministral", [], "layout of ministral is not known"), ("deepseek-v3", [], "layout of deepseek_v3 is not known"),
    ("gemma4", [], "layout of gemma4_text is not known"), ("gemma4-moe", [], "layout of gemma4 is not known"),
  ]

  @Test(arguments: refused.indices) func whatALayoutCannotHoldIsNamed(_ index: Int) throws {
    let (name, changes, words) = Self.refused[index]
    let config = try ModelConfig(text: try Self.config(name, changes).utf8, path: "/nonexistent/config.json")
    var reason: String?
    do { _ = try GGUFFormat().configuration(of: [], in: config) } catch { reason = "\(error)" }
    // No words are for what is taken.
    #expect(words.isEmpty ? reason == nil : reason?.contains(words) == true, "\(name): \(reason ?? "taken")")
  }

  @Test func approximationsAreRemarks() throws {
    for (name, words) in [
      ("falcon-7b", "tanh form"), ("gpt-neox", "tanh form"), ("mpt", "tanh form"), ("gpt-oss", "YaRN"), ("phi3-longrope", "long sequences"),
      ("gemma3", ""),
    ] {
      let config = try ModelConfig(text: try Families.configuration(name).utf8, path: "/nonexistent/config.json")
      let remarks = try GGUFFormat().remarks(on: try ArchitectureCatalog.standard.describe(config), in: config)
      #expect(words.isEmpty ? remarks.isEmpty : remarks.contains { $0.contains(words) }, "\(name): \(remarks)")
    }
  }
}
