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
}
