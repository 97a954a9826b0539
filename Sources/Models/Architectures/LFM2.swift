public import CheckpointIO
public import StrictJSON

/// LFM2: gated short convolutions with layers of grouped attention between; with mixtures of experts behind the first layers (Liquid AI 2025).
public enum LFM2: Architecture {
  public static let modelTypes = ["lfm2", "lfm2_moe"]

  private struct Keys: Decodable {
    var norm_eps: Float?
    var conv_L_cache, block_multiple_of, num_dense_layers, num_experts, num_experts_per_tok, moe_intermediate_size: Int?
    var conv_bias, block_auto_adjust_ff_dim, tie_embedding, use_expert_bias, norm_topk_prob: Bool?
    var block_ffn_dim_multiplier, routed_scaling_factor: Double?
    var full_attn_idxs: [Int]?
  }

  /// Which layers are attention is a list of their numbers in older files.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["full_attn_idxs"] = nil
    if description.blocks.contains(where: { $0.feedForward?.mixture != nil }) {
      json["num_dense_layers"] = .integer(description.blocks.prefix { $0.feedForward?.mixture == nil }.count)
    }
    json["layer_types"] = .array(description.blocks.map { .string($0.attention == nil ? "conv" : "full_attention") })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config
    if let size = config.json["block_ff_dim"] { config.json["intermediate_size"] = size }
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(
      config, DecoderDefaults(keyValueHeads: 8, epsilon: own.norm_eps ?? 1e-5, isTied: own.tie_embedding ?? true, rotaryBase: 1e6))
    model.finalNorm = "model.embedding_norm"
    let attentionLayers = own.full_attn_idxs.map(Set.init) ?? Set(model.blocks.indices)
    let layers = try LayerTypes(keys.layer_types, count: model.blocks.count, known: ["conv", "full_attention"]) {
      attentionLayers.contains($0) ? "full_attention" : "conv"
    }
    let isMixture = config.modelType == "lfm2_moe"
    let size = isMixture ? keys.intermediate_size : try feedForwardSize(keys.intermediate_size, own, config)
    let mixture = isMixture ? try mixture(own) : nil
    let convolution = ShortConvolution(size: model.hiddenSize, taps: own.conv_L_cache ?? 3, hasBias: own.conv_bias ?? false)
    model.eachBlock { layer, block in
      block.norms = NormPlacement(beforeAttention: "operator_norm", beforeFeedForward: "ffn_norm")
      block.feedForward?.size = size
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "feed_forward.w1", up: "feed_forward.w3"), down: "feed_forward.w2")
      if let mixture, layer >= own.num_dense_layers ?? 2 {
        block.feedForward?.size = own.moe_intermediate_size ?? 1792
        block.feedForward?.linears = FeedForwardLinears(.gated(gate: "w1", up: "w3"), down: "w2")
        block.feedForward?.mixture = mixture
      }
      if layers.types[layer] == "conv" {
        block.mixers = [convolution]
      } else {
        block.attention?.output = "self_attn.out_proj"
        block.attention?.queryKeyNorm = .head
        block.attention?.queryNormName = "q_layernorm"
        block.attention?.keyNormName = "k_layernorm"
      }
    }
    return model
  }

  private static func mixture(_ own: Keys) throws(CheckpointError) -> MixtureDescription {
    var mixture = try MixtureDescription(
      experts: own.num_experts ?? 32, expertsPerToken: own.num_experts_per_tok ?? 4, normalizesWeights: own.norm_topk_prob ?? true,
      router: "feed_forward.gate", prefix: "feed_forward.experts."
    ).checked()
    mixture.scoring = .sigmoid
    mixture.correction = own.use_expert_bias ?? true ? "feed_forward.expert_bias" : nil
    mixture.weightScale = Float(own.routed_scaling_factor ?? 1)
    return mixture
  }

  /// Two thirds of what is configured, times a factor, rounded up to a multiple, unless the configuration says that it is meant as it stands.
  private static func feedForwardSize(_ size: Int, _ own: Keys, _ config: ModelConfig) throws(CheckpointError) -> Int {
    guard own.block_auto_adjust_ff_dim ?? true else { return size }
    let multiple = try config.positive(own.block_multiple_of ?? 256, "block_multiple_of")
    let scaled = Double(2 * size / 3) * (own.block_ffn_dim_multiplier ?? 1)
    guard scaled >= 1, scaled < 1e9 else {
      throw .unsupportedOption(
        option: "block_ffn_dim_multiplier", value: "\(own.block_ffn_dim_multiplier ?? 1)", reason: "it makes layers of \(scaled) features")
    }
    return (Int(scaled) + multiple - 1) / multiple * multiple
  }
}
