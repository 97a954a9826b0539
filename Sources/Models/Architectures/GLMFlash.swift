public import CheckpointIO
public import StrictJSON

/// GLM-4.7-Flash: latent attention as DeepSeek-V3's, and mixtures whose routers score by the sigmoid, with a list of which layers have them
/// (Z.ai 2026).
public enum GLMFlash: Architecture {
  public static let modelTypes = ["glm4_moe_lite"]

  private struct Keys: Decodable {
    var q_lora_rank, kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim: Int?
    var mlp_layer_types: [String]?
    var rope_interleave: Bool?
  }

  /// Which layers are dense is a list; its absence says that the first one is.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["mlp_layer_types"] = .array(description.blocks.map { .string($0.feedForward?.mixture == nil ? "dense" : "sparse") })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    // What the hidden size divided by the heads would be is nothing here, and need not be a whole number.
    var model = try keys.description(config, DecoderDefaults(headSize: own.qk_rope_head_dim ?? 64, epsilon: 1e-5))
    let attention = try attention(keys, own, config)
    let types = own.mlp_layer_types ?? model.blocks.indices.map { $0 == 0 ? "dense" : "sparse" }
    guard types.count == model.blocks.count, types.allSatisfy({ $0 == "dense" || $0 == "sparse" }) else {
      throw .unsupportedOption(
        option: "mlp_layer_types", value: "\(types)", reason: "\(model.blocks.count) layers need as many of dense and sparse")
    }
    let dense = model.blocks.map(\.feedForward)
    var routed = try config.decode(RoutedExperts.self)
    // This family's transformers goes by the list alone.
    routed.first_k_dense_replace = 0
    try routed.apply(
      to: &model, .init(experts: 64, perToken: 4, size: 1536, scale: 1.8), correction: "mlp.gate.e_score_correction_bias")
    model.eachBlock { layer, block in
      block.mixers = [attention]
      if types[layer] == "dense" { block.feedForward = dense[layer] }
      block.feedForward?.hasBias = false
    }
    return model
  }

  private static func attention(_ keys: DecoderKeys, _ own: Keys, _ config: ModelConfig) throws(CheckpointError) -> LatentAttention {
    let (plain, rotated) = (own.qk_nope_head_dim ?? 192, own.qk_rope_head_dim ?? 64)
    guard rotated > 0, rotated % 2 == 0 else {
      throw .unsupportedOption(option: "qk_rope_head_dim", value: "\(rotated)", reason: "rotary embedding needs an even size")
    }
    let rotary = try RotaryDescription(config, headSize: rotated)
    guard rotary.fraction == 1 else {
      throw .unsupportedOption(
        option: "partial_rotary_factor", value: "\(rotary.fraction)", reason: "the part of a head that is rotated is rotated as a whole")
    }
    // Absent is not null, which says that queries are made of the hidden states.
    return LatentAttention(
      heads: keys.num_attention_heads, queryRank: own.q_lora_rank ?? (config.json["q_lora_rank"] == nil ? 768 : nil),
      rank: own.kv_lora_rank ?? 512, plainSize: plain, rotarySize: rotated, valueSize: own.v_head_dim ?? 256, rotary: rotary,
      isInterleaved: own.rope_interleave ?? true, scale: Float(DeepSeek.scoreGain(config) / Double(plain + rotated).squareRoot()),
      epsilon: 1e-6, hasBias: keys.attention_bias ?? false)
  }
}
