public import CheckpointIO
public import StrictJSON

/// LFM2: gated short convolutions with layers of grouped attention between (Liquid AI 2025).
public enum LFM2: Architecture {
  public static let modelTypes = ["lfm2"]

  private struct Keys: Decodable {
    var norm_eps: Float?
    var conv_L_cache, block_multiple_of: Int?
    var conv_bias, block_auto_adjust_ff_dim, tie_embedding: Bool?
    var block_ffn_dim_multiplier: Double?
    var full_attn_idxs: [Int]?
  }

  /// Which layers are attention is a list of their numbers in older files.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["full_attn_idxs"] = nil
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
    let size = try feedForwardSize(keys.intermediate_size, own, config)
    let convolution = ShortConvolution(size: model.hiddenSize, taps: own.conv_L_cache ?? 3, hasBias: own.conv_bias ?? false)
    model.eachBlock { layer, block in
      block.norms = NormPlacement(beforeAttention: "operator_norm", beforeFeedForward: "ffn_norm")
      block.feedForward?.size = size
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "feed_forward.w1", up: "feed_forward.w3"), down: "feed_forward.w2")
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
