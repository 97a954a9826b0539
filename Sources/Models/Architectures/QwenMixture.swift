public import CheckpointIO
public import StrictJSON

/// Qwen2 and Qwen3 with mixtures of experts; Qwen2's have a shared one (Yang et al. 2024, 2025). Of Qwen3-VL, which stores its experts together,
/// the language model.
public enum QwenMixture: Architecture {
  public static let modelTypes = ["qwen2_moe", "qwen3_moe", "qwen3_vl_moe", "qwen3_vl_moe_text"]

  private struct Keys: Decodable {
    var num_experts, num_local_experts, num_experts_per_tok, moe_intermediate_size, shared_expert_intermediate_size: Int?
    var decoder_sparse_step: Int?
    var mlp_only_layers: [Int]?
    var norm_topk_prob, qkv_bias: Bool?
  }

  /// Which layers are mixtures is a rule over their numbers, with exceptions.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    let dense = description.blocks.indices.filter { description.blocks[$0].feedForward?.mixture == nil }
    guard !dense.isEmpty else { return }
    json["decoder_sparse_step"] = .integer(1)
    json["mlp_only_layers"] = .array(dense.map { .integer($0) })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let seesImages = config.modelType.hasPrefix("qwen3_vl")
    let config = config.ofText
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    let isQwen3 = config.modelType == "qwen3_moe" || seesImages
    let defaults =
      seesImages
      ? DecoderDefaults(keyValueHeads: 16, isTied: config.modelType.hasSuffix("_text"), rotaryBase: 5e5)
      : DecoderDefaults(keyValueHeads: isQwen3 ? 4 : 16)
    var model = try keys.description(config, defaults)
    let shared = own.shared_expert_intermediate_size ?? 5632
    var mixture = try MixtureDescription(
      experts: own.num_experts ?? own.num_local_experts ?? (isQwen3 && !seesImages ? 128 : 60),
      expertsPerToken: own.num_experts_per_tok ?? (isQwen3 && !seesImages ? 8 : 4),
      normalizesWeights: seesImages || own.norm_topk_prob ?? false,
      router: "mlp.gate", prefix: "mlp.experts.",
      shared: isQwen3 ? nil : .init(size: shared, prefix: "mlp.shared_expert.", gate: "mlp.shared_expert_gate")
    ).checked()
    if seesImages {
      mixture.stacked = StackedExperts(readers: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj", isTransposed: true)
    }
    let window = keys.use_sliding_window == true ? keys.sliding_window ?? 4096 : nil
    // Qwen3's windows are on all layers, Qwen2's on every other one of the first.
    let slides = try keys.slides { isQwen3 || ($0 + 1) % 2 == 1 && $0 < keys.max_window_layers ?? 28 }
    let step = own.decoder_sparse_step ?? 1
    guard step > 0 else { throw .unsupportedOption(option: "decoder_sparse_step", value: "\(step)", reason: "a positive number is needed") }
    model.eachBlock { layer, block in
      block.attention?.window = slides[layer] ? window : nil
      if isQwen3 {
        block.attention?.queryKeyNorm = .head
      } else {
        block.attention?.hasProjectionBias = own.qkv_bias ?? true
        block.attention?.hasOutputBias = false
      }
      block.feedForward?.hasBias = false
      guard own.mlp_only_layers?.contains(layer) != true, (layer + 1) % step == 0 else { return }
      block.feedForward?.size = own.moe_intermediate_size ?? (isQwen3 && !seesImages ? 768 : 1408)
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }
}
