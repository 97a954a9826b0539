public import CheckpointIO
import StrictJSON

/// OLMo 2, whose norms stand behind attention and the feed-forward layer, OLMo 3, which has windows on three layers of four and stretches the
/// rotation of the others alone, and OLMoE, a mixture of many small experts (OLMo Team 2024, 2025; Muennighoff et al. 2024). All normalise all
/// queries of a token together, and all keys.
public enum OLMo: Architecture {
  public static let modelTypes = ["olmo2", "olmo3", "olmoe"]

  private struct Keys: Decodable {
    var num_experts, num_local_experts, num_experts_per_tok: Int?
    var norm_topk_prob: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let isThird = config.modelType == "olmo3"
    let defaults = DecoderDefaults(epsilon: 1e-5, rotaryBase: isThird ? 5e5 : 1e4)
    var model = try keys.description(config, defaults)
    guard config.modelType == "olmoe" else {
      let slides = try keys.slides { isThird && ($0 + 1) % 4 != 0 }
      let local = isThird ? try localRotary(keys, config, defaults) : nil
      model.eachBlock { layer, block in
        if slides[layer] {
          block.attention?.window = config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
          block.attention?.rotary = local
        }
        block.attention?.queryKeyNorm = .whole
        block.norms = NormPlacement(
          beforeAttention: nil, afterAttention: "post_attention_layernorm", beforeFeedForward: nil,
          afterFeedForward: "post_feedforward_layernorm")
      }
      return model
    }
    if let clip = config.json["clip_qkv"], !clip.isNull {
      throw .unsupportedOption(option: "clip_qkv", value: clip.text(), reason: "queries, keys and values are not clipped here")
    }
    let own = try config.decode(Keys.self)
    let mixture = try MixtureDescription(
      experts: own.num_experts ?? own.num_local_experts ?? 64, expertsPerToken: own.num_experts_per_tok ?? 8,
      normalizesWeights: own.norm_topk_prob ?? false, router: "mlp.gate", prefix: "mlp.experts."
    ).checked()
    model.eachBlock { _, block in
      block.attention?.queryKeyNorm = .whole
      block.feedForward?.hasBias = false
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  /// What turns heads under windows: the plain rotation, where the configuration has no part for it.
  private static func localRotary(
    _ keys: DecoderKeys, _ config: ModelConfig, _ defaults: DecoderDefaults
  ) throws(CheckpointError) -> RotaryDescription {
    var plain = config
    plain.json["rope_scaling"] = nil
    let headSize = try keys.headSize(defaults)
    guard config.json["rope_parameters"]?["sliding_attention"]?.members == nil else {
      return try RotaryDescription(plain, base: defaults.rotaryBase, headSize: headSize, layerType: "sliding_attention")
    }
    plain.json["rope_parameters"] = nil
    return try RotaryDescription(plain, base: defaults.rotaryBase, headSize: headSize)
  }
}
