public import CheckpointIO
internal import Foundation
public import StrictJSON

/// DeepSeek V2, V3 and R1, and Kimi K2: latent attention; dense layers first, then mixtures of many small experts and a shared one, chosen
/// by groups (DeepSeek-AI 2024).
public enum DeepSeek: Architecture {
  public static let modelTypes = ["deepseek_v2", "deepseek_v3", "kimi_k2"]

  private struct Keys: Decodable {
    var q_lora_rank, kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim: Int?
    var n_routed_experts, n_shared_experts, num_experts_per_tok, moe_intermediate_size, first_k_dense_replace, moe_layer_freq: Int?
    var n_group, topk_group: Int?
    var topk_method, scoring_func: String?
    var routed_scaling_factor: Double?
    var norm_topk_prob, rope_interleave: Bool?
  }

  /// Dense layers come first, and how many there are is a number.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["first_k_dense_replace"] = .integer(description.blocks.prefix { $0.feedForward?.mixture == nil }.count)
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let isSecond = config.modelType == "deepseek_v2"
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config)
    let attention = try attention(keys, own, config)
    let mixture = try mixture(own, isSecond: isSecond, config)
    let dense = own.first_k_dense_replace ?? (isSecond ? 0 : 3)
    let step = try config.positive(own.moe_layer_freq ?? 1, "moe_layer_freq")
    model.eachBlock { layer, block in
      block.mixers = [attention]
      if !isSecond { block.feedForward?.hasBias = false }
      guard let mixture, layer >= dense, layer % step == 0 else { return }
      block.feedForward?.hasBias = false
      block.feedForward?.size = own.moe_intermediate_size ?? (isSecond ? 1407 : 2048)
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  private static func attention(_ keys: DecoderKeys, _ own: Keys, _ config: ModelConfig) throws(CheckpointError) -> LatentAttention {
    let (plain, rotated) = (own.qk_nope_head_dim ?? 128, own.qk_rope_head_dim ?? 64)
    guard rotated > 0, rotated % 2 == 0 else {
      throw .unsupportedOption(option: "qk_rope_head_dim", value: "\(rotated)", reason: "rotary embedding needs an even size")
    }
    // Absent is not null: DeepSeek-V2-Lite says null and makes its queries of the hidden states.
    let queryRank = own.q_lora_rank ?? (config.json["q_lora_rank"] == nil ? 1536 : nil)
    return LatentAttention(
      heads: keys.num_attention_heads, queryRank: queryRank, rank: own.kv_lora_rank ?? 512, plainSize: plain, rotarySize: rotated,
      valueSize: own.v_head_dim ?? 128, rotary: try RotaryDescription(config, headSize: rotated),
      isInterleaved: config.modelType == "deepseek_v2" || own.rope_interleave ?? true,
      scale: Float(scoreGain(config) / Double(plain + rotated).squareRoot()), epsilon: 1e-6, hasBias: keys.attention_bias ?? false)
  }

  /// What YaRN's `mscale_all_dim` makes of the scores, on top of 1/√d: (0.1 · m · log(factor) + 1)².
  static func scoreGain(_ config: ModelConfig) -> Double {
    let parameters = [config.json["rope_scaling"], config.json["rope_parameters"]].compactMap { $0 }.first { $0.members?.isEmpty == false }
    guard let parameters, let type = (parameters["rope_type"] ?? parameters["type"])?.string, type != "default",
      let scale = parameters["mscale_all_dim"]?.double, scale != 0, let factor = parameters["factor"]?.double, factor > 1
    else { return 1 }
    let gain = 0.1 * scale * log(factor) + 1
    return gain * gain
  }

  private static func mixture(_ own: Keys, isSecond: Bool, _ config: ModelConfig) throws(CheckpointError) -> MixtureDescription? {
    guard config.json["n_routed_experts"]?.isNull != true else { return nil }
    let scoring = isSecond ? "softmax" : "sigmoid"
    guard own.scoring_func ?? scoring == scoring else {
      throw .unsupportedOption(
        option: "scoring_func", value: own.scoring_func ?? "", reason: "routers of \(config.modelType) score by \(scoring)")
    }
    let experts = own.n_routed_experts ?? (isSecond ? 64 : 256)
    let shared = own.n_shared_experts ?? (isSecond ? 2 : 1)
    let size = own.moe_intermediate_size ?? (isSecond ? 1407 : 2048)
    var mixture = try MixtureDescription(
      experts: experts, expertsPerToken: own.num_experts_per_tok ?? 8, normalizesWeights: isSecond ? false : own.norm_topk_prob ?? true,
      router: "mlp.gate", prefix: "mlp.experts.",
      shared: shared > 0 ? .init(size: shared * size, prefix: "mlp.shared_experts.", gate: nil) : nil
    ).checked()
    mixture.weightScale = Float(own.routed_scaling_factor ?? (isSecond ? 1 : 2.5))
    guard isSecond else {
      mixture.scoring = .sigmoid
      mixture.correction = "mlp.gate.e_score_correction_bias"
      try mixture.setGroups(own.n_group ?? 8, perToken: own.topk_group ?? 4, scored: 2)
      return mixture
    }
    switch own.topk_method ?? "greedy" {
    case "greedy": break
    case "group_limited_greedy": try mixture.setGroups(own.n_group ?? 1, perToken: own.topk_group ?? 1, scored: 1)
    case let method:
      throw .unsupportedOption(option: "topk_method", value: method, reason: "greedy and group_limited_greedy are known")
    }
    guard own.norm_topk_prob != true else {
      throw .unsupportedOption(option: "norm_topk_prob", value: "true", reason: "transformers does not obey it for this family")
    }
    return mixture
  }
}
