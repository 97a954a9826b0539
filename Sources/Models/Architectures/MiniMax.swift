public import CheckpointIO

/// MiniMax-M2: mixtures of many experts scored by the sigmoid, queries and keys normalised over all heads together, heads rotated in part
/// (MiniMax 2025).
public enum MiniMax: Architecture {
  public static let modelTypes = ["minimax_m2"]

  private struct Keys: Decodable {
    var num_local_experts, num_experts_per_tok, rotary_dim: Int?
    var use_qk_norm: Bool?
    var qk_norm_type: String?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    if let type = own.qk_norm_type, type != "per_layer" {
      throw .unsupportedOption(option: "qk_norm_type", value: type, reason: "per_layer is known")
    }
    let defaults = DecoderDefaults(headSize: 128, keyValueHeads: 8, rotaryBase: 5e6)
    var model = try keys.description(config, defaults)
    let headSize = try keys.headSize(defaults)
    let rotary = try RotaryDescription(
      config, base: 5e6, fraction: Double(own.rotary_dim ?? headSize) / Double(headSize), headSize: headSize)
    var mixture = try MixtureDescription(
      experts: own.num_local_experts ?? 256, expertsPerToken: own.num_experts_per_tok ?? 8, normalizesWeights: true,
      router: "block_sparse_moe.gate", prefix: "block_sparse_moe.experts."
    ).checked()
    mixture.scoring = .sigmoid
    mixture.correction = "block_sparse_moe.e_score_correction_bias"
    model.eachBlock { _, block in
      block.attention?.rotary = rotary
      block.attention?.queryKeyNorm = own.use_qk_norm == false ? nil : .whole
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
      block.feedForward?.hasBias = false
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "w1", up: "w3"), down: "w2")
      block.feedForward?.mixture = mixture
    }
    return model
  }
}
