import CompressKit
import Foundation
import TestSupport
import Testing

/// What configurations call modules that the runtimes know by other names than the file does.
struct ModuleNamesTests {
  /// Gemma 3 beside a vision tower, and the same modules as transformers 5 names them while it runs: with other levels inside the tower.
  private static let language = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"]
  private static let hub =
    language.flatMap { ["language_model.model.layers.0.\($0)", "language_model.model.layers.1.\($0)"] }
    + ["vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", "vision_tower.vision_model.encoder.layers.0.mlp.fc1"]
  private static let tower = [
    "model.vision_tower.encoder.layers.0.self_attn.q_proj", "model.vision_tower.head.mlp.fc1",
    "model.vision_tower.encoder.layers.0.mlp.fc1",
  ]
  private static let config = #"{"model_type":"gemma3","dtype":"bfloat16","text_config":{"tie_word_embeddings":true},"vision_config":{}}"#

  /// The first layer's output projection is dense, and the second's down-projection has other numbers.
  private func modules(_ names: [String], other: QuantizationScheme?) -> [StoredModule] {
    let usual = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    return names.map { name in
      let isDense = name.contains("vision") || name.hasSuffix("layers.0.self_attn.o_proj")
      let isOther = other != nil && name.hasSuffix("layers.1.mlp.down_proj")
      return StoredModule(name: name, scheme: isDense ? nil : isOther ? other : usual)
    }
  }

  /// What each name is while the model runs, in vLLM (as in the hub's files) and in transformers 5.
  private func running(_ name: String) -> [String] {
    let root = name.replacing("model.language_model.", with: "language_model.model.").replacing("model.vision_tower", with: "vision_tower")
    let inside = root.replacing("language_model.model.", with: "model.language_model.")
    return [root, inside.hasPrefix("vision_tower") ? "model." + inside : inside]
  }

  private var spellings: [[String]] {
    [
      Self.hub,
      Self.hub.map { name in
        name.hasPrefix("vision_tower") ? "model." + name : name.replacing("language_model.model.", with: "model.language_model.")
      },
    ]
  }

  private func matches(_ expression: String, _ name: String) throws -> Bool { try Regex(expression).prefixMatch(in: name) != nil }

  @Test func compressedTensors() throws {
    let other = QuantizationScheme(bits: 8, granularity: .channel, symmetric: true, scaleType: .bfloat16)
    for names in spellings {
      let modules = modules(names, other: other)
      let json = try CompressedTensorsFormat().configuration(of: modules, in: ModelConfig(text: Self.config.utf8))
      let quantization = try #require(json["quantization_config"])
      let ignored = try #require(quantization["ignore"]?.elements).compactMap(\.string)
      // compressed_tensors.utils.match: a name as a whole, or an expression from its start.
      func isIgnored(_ name: String) throws -> Bool {
        try ignored.contains { try $0.hasPrefix("re:") ? matches(String($0.dropFirst(3)), name) : $0 == name }
      }
      for module in modules { for name in running(module.name) { #expect(try isIgnored(name) == (module.scheme == nil), "\(name)") } }
      for name in Self.tower + ["lm_head"] { #expect(try isIgnored(name)) }
      let group = try #require(quantization["config_groups"]?["group_0"]?["targets"]?.elements).compactMap(\.string)
      for name in running("language_model.model.layers.1.mlp.down_proj") { #expect(group.contains(name)) }
      #expect(group.allSatisfy { $0.hasSuffix("layers.1.mlp.down_proj") })
    }
  }

  @Test func gptqAndAWQ() throws {
    let other = QuantizationScheme(bits: 8, granularity: .group(32), symmetric: true, scaleType: .float16)
    for names in spellings {
      let own = modules(names, other: other)
      let json = try GPTQFormat().configuration(of: own, in: ModelConfig(text: Self.config.utf8))
      let dynamic = try #require(json["quantization_config"]?["dynamic"]?.members)
      for module in own {
        for name in running(module.name) {
          let found = try dynamic.first { try matches(String($0.key.dropFirst(2)), name) }
          let isOther = module.scheme == other
          #expect(found?.key.hasPrefix(module.scheme == nil ? "-:" : "+:") == (module.scheme == nil || isOther ? true : nil), "\(name)")
          #expect(!isOther || found?.value["bits"]?.integer == 8)
        }
      }
      for name in Self.tower { #expect(try dynamic.contains { try $0.key.hasPrefix("-:") && matches(String($0.key.dropFirst(2)), name) }) }

      let plain = modules(names, other: nil)
      let awq = try AWQFormat().configuration(of: plain, in: ModelConfig(text: Self.config.utf8))
      let stay = try #require(awq["quantization_config"]?["modules_to_not_convert"]?.elements).compactMap(\.string)
      for module in plain {
        // AutoAWQ and vLLM look for a word anywhere; transformers from the start up to a dot, or at the end.
        let (first, second) = (running(module.name)[0], running(module.name)[1])
        #expect(stay.contains { first.contains($0) } == (module.scheme == nil), "\(first)")
        for name in [first, second] {
          let stays = try stay.contains { try matches("(?:\($0))(?:\\.|$)", name) || name.hasSuffix($0) }
          #expect(stays == (module.scheme == nil), "\(name)")
        }
      }
    }
  }

  @Test func whatRuntimesPutBeforeNamesIsPutThere() throws {
    let config = try ModelConfig(text: TinyModel.config.utf8)
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .bfloat16)
    let modules = ["layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"].enumerated().map {
      StoredModule(name: $1, scheme: $0 == 0 ? scheme : nil)
    }
    let json = try CompressedTensorsFormat().configuration(of: modules, in: config)
    let ignored = json["quantization_config"]?["ignore"]?.elements?.compactMap(\.string)
    #expect(ignored?.contains("layers.0.mlp.down_proj") == true && ignored?.contains("model.layers.0.mlp.down_proj") == true)
    // Ordinary names stay alone.
    let ordinary = try CompressedTensorsFormat().configuration(
      of: modules.map { StoredModule(name: "model." + $0.name, scheme: $0.scheme) }, in: config)
    #expect(ordinary["quantization_config"]?["ignore"]?.elements?.compactMap(\.string) == ["model.layers.0.mlp.down_proj"])
  }

  /// transformers takes the router of this family for a linear like any other, and calls it something else.
  @Test func routersThatAreLinearsElsewhereAreIgnoredThere() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .bfloat16)
    let modules = [
      StoredModule(name: "model.layers.0.self_attn.q_proj", scheme: scheme),
      StoredModule(name: "model.layers.0.block_sparse_moe.gate", scheme: nil),
    ]
    func ignored(_ family: String) throws -> [String] {
      let config = try ModelConfig(text: Families.configuration(family).utf8)
      let json = try CompressedTensorsFormat().configuration(of: modules, in: config)
      return try #require(json["quantization_config"]?["ignore"]?.elements).compactMap(\.string)
    }
    #expect(try ignored("phimoe").contains("model.layers.0.mlp.router"))
    #expect(try ignored("phimoe").contains("model.layers.0.block_sparse_moe.gate"))
    #expect(try !ignored("mixtral").contains("model.layers.0.mlp.router"))
  }
}
