public import CheckpointIO
public import StrictJSON

/// Mistral 4: latent attention whose queries grow along the sequence, and mixtures beside an expert that sees every token, whose routers look into
/// the best groups (Mistral AI 2026).
public enum Mistral4: Architecture {
  public static let modelTypes = ["mistral4"]

  private struct Keys: Decodable {
    var q_lora_rank, kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim: Int?
    var n_routed_experts, n_shared_experts, num_experts_per_tok, moe_intermediate_size, first_k_dense_replace, n_group, topk_group: Int?
    var routed_scaling_factor: Double?
    var norm_topk_prob, rope_interleave: Bool?
  }

  /// Dense layers come first, and how many there are is a number.
  public static func respell(_ json: inout JSON, for description: ModelDescription) { RoutedExperts.respell(&json, for: description) }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config
    config.sayRotation(factor: 128, positions: 8192, base: 10_000)
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config.withoutPartialRotation)
    let attention = try attention(keys, own, config)
    let mixture = try mixture(own)
    let dense = own.first_k_dense_replace ?? 0
    model.eachBlock { layer, block in
      block.mixers = [attention]
      block.feedForward?.hasBias = false
      guard layer >= dense else { return }
      block.feedForward?.size = own.moe_intermediate_size ?? 2048
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  private static func attention(_ keys: DecoderKeys, _ own: Keys, _ config: ModelConfig) throws(CheckpointError) -> LatentAttention {
    let (plain, rotated) = (own.qk_nope_head_dim ?? 64, own.qk_rope_head_dim ?? 64)
    guard rotated > 0, rotated % 2 == 0, plain >= 0 else {
      throw .unsupportedOption(option: "qk_rope_head_dim", value: "\(rotated)", reason: "rotary embedding needs an even size")
    }
    var attention = LatentAttention(
      // Absent is not null, which says that queries are made of the hidden states.
      heads: keys.num_attention_heads, queryRank: own.q_lora_rank ?? (config.json["q_lora_rank"] == nil ? 1024 : nil),
      rank: own.kv_lora_rank ?? 256, plainSize: plain, rotarySize: rotated, valueSize: own.v_head_dim ?? 128,
      rotary: try RotaryDescription(config.withoutPartialRotation, headSize: rotated), isInterleaved: own.rope_interleave ?? true,
      scale: Float(DeepSeek.scoreGain(config) / Double(plain + rotated).squareRoot()), epsilon: 1e-6,
      hasBias: keys.attention_bias ?? false)
    attention.queryScale = try config.queryScale
    return attention
  }

  private static func mixture(_ own: Keys) throws(CheckpointError) -> MixtureDescription {
    let shared = (own.n_shared_experts ?? 1) * (own.moe_intermediate_size ?? 2048)
    var mixture = try MixtureDescription(
      experts: own.n_routed_experts ?? 128, expertsPerToken: own.num_experts_per_tok ?? 4, normalizesWeights: own.norm_topk_prob ?? true,
      router: "mlp.gate", prefix: "mlp.experts.",
      shared: shared > 0 ? .init(size: shared, prefix: "mlp.shared_experts.", gate: nil) : nil
    ).checked()
    mixture.weightScale = Float(own.routed_scaling_factor ?? 1)
    mixture.stacked = StackedExperts(readers: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj")
    try mixture.setGroups(own.n_group ?? 1, perToken: own.topk_group ?? 1, scored: 2)
    return mixture
  }
}

extension ModelConfig {
  /// Without the share of a head that is rotated, which latent attention says in numbers.
  fileprivate var withoutPartialRotation: ModelConfig {
    var whole = self
    whole.json["partial_rotary_factor"] = nil
    for key in ["rope_scaling", "rope_parameters"] {
      guard var part = json[key], part["partial_rotary_factor"] != nil else { continue }
      part["partial_rotary_factor"] = nil
      whole.json[key] = part
    }
    return whole
  }
}
