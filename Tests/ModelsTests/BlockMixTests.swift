import CompressKit
import TestSupport
import Testing

struct BlockMixTests {
  private func description(layers: Int, keyValueHeads: Int, isTied: Bool) -> ModelDescription {
    let attention = AttentionDescription(heads: 8, keyValueHeads: keyValueHeads, headSize: 32, rotary: RotaryDescription())
    return ModelDescription(
      vocabularySize: 32, hiddenSize: 256, head: isTied ? nil : "lm_head", normEpsilon: 1e-5,
      blocks: (0..<layers).map { layer in
        BlockDescription(
          prefix: "model.layers.\(layer).", hiddenSize: 256, normEpsilon: 1e-5, attention: attention,
          feedForward: FeedForwardDescription(size: 256, activation: .silu))
      })
  }

  @Test(arguments: goldenMixes.indices)
  func typesAreThoseOfLlamaQuantize(_ index: Int) throws {
    let golden = goldenMixes[index]
    let mix = try #require(BlockMix(rawValue: golden.mix))
    let ends = golden.ends.split(separator: " ")
    let model = description(layers: golden.layers, keyValueHeads: golden.keyValueHeads, isTied: ends.count == 1)
    func type(_ name: String) -> String {
      mix.type(of: BlockMix.Role(of: name, in: model), columns: 256, in: BlockMix.Model(model, hasImportance: false)).name
    }
    #expect(type("model.embed_tokens") == ends[0])
    if ends.count == 2 { #expect(type("lm_head") == ends[1]) }
    for (linear, expected) in [("self_attn.v_proj", golden.values), ("self_attn.o_proj", golden.outputs), ("mlp.down_proj", golden.downs)] {
      let types = Array(expected)
      for layer in 0..<golden.layers {
        let character = types.count == 1 ? types[0] : types[layer]
        let wanted = character == "." ? mix.base.name : "Q\(character)_K"
        #expect(type("model.layers.\(layer).\(linear)") == wanted, "\(golden.mix) \(linear) of layer \(layer)")
      }
    }
    for linear in ["self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj", "mlp.up_proj"] {
      #expect(type("model.layers.1.\(linear)") == mix.base.name)
    }
  }

  @Test func importanceAndOddWidthsMatter() {
    let model = description(layers: 16, keyValueHeads: 8, isTied: false)
    func type(_ mix: BlockMix, _ name: String, columns: Int = 256) -> BlockType {
      mix.type(of: BlockMix.Role(of: name, in: model), columns: columns, in: BlockMix.Model(model, hasImportance: true))
    }
    #expect(type(.q4_0, "model.layers.1.mlp.down_proj") == .q4_1 && type(.q4_0, "model.layers.2.mlp.down_proj") == .q4_0)
    #expect(type(.q5_0, "model.layers.0.mlp.down_proj") == .q5_1 && type(.iq4_xs, "model.layers.0.mlp.down_proj") == .iq4_xs)
    #expect(type(.q4_k_m, "lm_head", columns: 288) == .q8_0 && type(.f16, "lm_head") == .f16)
    for (type, fallback) in [
      (BlockType.q2_k, BlockType.q4_0), (.q3_k, .q4_0), (.q4_k, .q5_0), (.q5_k, .q5_1), (.q6_k, .q8_0), (.iq4_xs, .iq4_nl),
    ] {
      #expect(type.fitting(columns: 512) == type && type.fitting(columns: 288) == fallback && type.fitting(columns: 40) == .f16)
    }
    #expect(BlockType.q8_0.fitting(columns: 48) == .f16 && BlockType.nvfp4.fitting(columns: 96) == .f16)
  }

  /// The last names of a layer's linears by what they do.
  private func roles(_ family: String, layer: Int) throws -> (values: [String], outputs: [String], downs: [String]) {
    let description = try Families.model(family).description
    let block = description.blocks[layer]
    var roles: (values: [String], outputs: [String], downs: [String]) = ([], [], [])
    for name in block.inputGroups.flatMap(\.linears).map(\.rawValue) {
      switch BlockMix.Role(of: block.prefix + name, in: description) {
      case .value(layer): roles.values.append(name)
      case .output(layer): roles.outputs.append(name)
      case .down(layer): roles.downs.append(name)
      case .other: break
      case let role: Issue.record("\(name) is \(role)")
      }
    }
    #expect(BlockMix.Role(of: description.embedding, in: description) == .embedding)
    if let head = description.head { #expect(BlockMix.Role(of: head, in: description) == .head) }
    return roles
  }

  @Test(arguments: ["llama-yarn", "olmo2", "smollm3", "gemma2", "granite", "stablelm"]) func llamasNamesMeanWhatTheyDid(_ family: String)
    throws
  {
    let roles = try roles(family, layer: 1)
    #expect(roles == (["self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.down_proj"]))
  }

  /// One linear that makes queries, keys and values has none of these roles.
  @Test func otherNamesHaveTheSameRoles() throws {
    #expect(try roles("gpt2", layer: 1) == ([], ["attn.c_proj"], ["mlp.c_proj"]))
    #expect(try roles("gpt-neox", layer: 0) == ([], ["attention.dense"], ["mlp.dense_4h_to_h"]))
    #expect(try roles("phi3", layer: 0) == ([], ["self_attn.o_proj"], ["mlp.down_proj"]))
    #expect(try roles("opt", layer: 1) == (["self_attn.v_proj"], ["self_attn.out_proj"], ["fc2"]))
  }

  @Test(arguments: Families.allMixtures) func everyNetworkHasADown(_ family: String) throws {
    let description = try Families.model(family).description
    for (layer, block) in description.blocks.enumerated() {
      let expected = try #require(block.feedForward).networks.map(\.down.rawValue)
      let found = try roles(family, layer: layer)
      #expect(Set(found.downs) == Set(expected) && found.downs.count == expected.count)
      #expect(found.outputs.count == (block.mixers.contains { $0 is AttentionDescription || $0 is LatentAttention } ? 1 : 0))
      #expect(found.values.count == (block.attention == nil ? 0 : 1))
    }
  }

  /// Recurrences have none of these roles, attention beside them has.
  @Test func mixersThatAreNoAttentionHaveNone() throws {
    #expect(try roles("falcon-h1", layer: 0) == (["self_attn.v_proj"], ["self_attn.o_proj"], ["feed_forward.down_proj"]))
    #expect(try roles("deepseek-v2", layer: 0).outputs == ["self_attn.o_proj"])
    let next = try Families.model("qwen3-next").description
    let recurrent = try #require(next.blocks.firstIndex { $0.attention == nil })
    #expect(try roles("qwen3-next", layer: recurrent).outputs.isEmpty)
  }
}
