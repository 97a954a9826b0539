public import CheckpointIO
import StrictJSON

/// OLMo 2, whose norms stand behind attention and the feed-forward layer, and OLMoE, a mixture of many small experts
/// (OLMo Team 2024; Muennighoff et al. 2024). Both normalise all queries of a token together, and all keys.
public enum OLMo: Architecture {
  public static let modelTypes = ["olmo2", "olmoe"]

  private struct Keys: Decodable {
    var num_experts, num_local_experts, num_experts_per_tok: Int?
    var norm_topk_prob: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var model = try config.decode(DecoderKeys.self).description(config, DecoderDefaults(epsilon: 1e-5))
    guard config.modelType == "olmoe" else {
      model.eachBlock { _, block in
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
}
