public import CheckpointIO
public import StrictJSON

/// Qwen3-Next and Qwen3.5, dense and with mixtures: three layers of Gated DeltaNet to one of attention whose output is gated; norms that store their weights
/// less one (Qwen Team 2025, 2026).
public enum QwenHybrid: Architecture {
  public static let modelTypes = ["qwen3_next", "qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe"]

  private struct Keys: Decodable {
    var full_attention_interval: Int?
    var linear_conv_kernel_dim, linear_key_head_dim, linear_value_head_dim, linear_num_key_heads, linear_num_value_heads: Int?
    var num_experts, num_experts_per_tok, moe_intermediate_size, shared_expert_intermediate_size, decoder_sparse_step: Int?
    var mlp_only_layers: [Int]?
    var norm_topk_prob: Bool?
  }

  /// Which layers are attention, and which mixtures, are rules over their numbers.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["layer_types"] = .array(description.blocks.map { .string($0.attention == nil ? "linear_attention" : "full_attention") })
    // Where some layers are none, it is the family whose configuration says so.
    guard description.blocks.contains(where: { $0.feedForward?.mixture != nil }),
      json["decoder_sparse_step"] != nil || json["mlp_only_layers"] != nil
    else { return }
    let dense = description.blocks.indices.filter { description.blocks[$0].feedForward?.mixture == nil }
    json["decoder_sparse_step"] = .integer(1)
    json["mlp_only_layers"] = .array(dense.map { .integer($0) })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let isNext = config.modelType == "qwen3_next"
    let isMixture = config.modelType.hasPrefix("qwen3_5_moe")
    var config = config.ofText
    // All its layers are mixtures.
    if isMixture, config.json["intermediate_size"] == nil { config.json["intermediate_size"] = .integer(1) }
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    try config.checkMixerActivation("hidden_act")
    let defaults = DecoderDefaults(headSize: 256, keyValueHeads: isNext || isMixture ? 2 : 4)
    var model = try keys.description(config, defaults)
    model.norm.offset = 1
    let rotary = try RotaryDescription(config, fraction: 0.25, headSize: keys.headSize(defaults))
    let interval = try config.positive(own.full_attention_interval ?? 4, "full_attention_interval")
    let layers = try LayerTypes(keys.layer_types, count: model.blocks.count, known: ["linear_attention", "full_attention"]) {
      ($0 + 1) % interval == 0 ? "full_attention" : "linear_attention"
    }
    let delta = GatedDeltaNet(
      keyHeads: own.linear_num_key_heads ?? 16, valueHeads: own.linear_num_value_heads ?? 32, keySize: own.linear_key_head_dim ?? 128,
      valueSize: own.linear_value_head_dim ?? 128, taps: own.linear_conv_kernel_dim ?? 4, epsilon: model.normEpsilon,
      projections: isNext ? .interleaved : .separate)
    let mixture = isNext || isMixture ? try mixture(own, isNext: isNext) : nil
    let step = try config.positive(own.decoder_sparse_step ?? 1, "decoder_sparse_step")
    model.eachBlock { layer, block in
      block.norm.offset = 1
      if layers.types[layer] == "linear_attention" {
        block.mixers = [delta]
      } else {
        block.attention?.rotary = rotary
        block.attention?.queryKeyNorm = .head
        block.attention?.hasOutputGate = true
      }
      guard let mixture, isMixture || own.mlp_only_layers?.contains(layer) != true, isMixture || (layer + 1) % step == 0 else { return }
      block.feedForward?.size = own.moe_intermediate_size ?? 512
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  private static func mixture(_ own: Keys, isNext: Bool) throws(CheckpointError) -> MixtureDescription? {
    let experts = own.num_experts ?? (isNext ? 512 : 256)
    guard experts > 0 || !isNext else { return nil }
    var mixture = try MixtureDescription(
      experts: experts, expertsPerToken: own.num_experts_per_tok ?? (isNext ? 10 : 8),
      normalizesWeights: isNext ? own.norm_topk_prob ?? true : true,
      router: "mlp.gate", prefix: "mlp.experts.",
      shared: .init(size: own.shared_expert_intermediate_size ?? 512, prefix: "mlp.shared_expert.", gate: "mlp.shared_expert_gate")
    ).checked()
    if !isNext {
      mixture.stacked = StackedExperts(readers: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj", isReadSeparately: true)
    }
    return mixture
  }
}
