public import CheckpointIO
public import StrictJSON

/// GLM-4, dense, with norms before and behind the layers and half of every head rotated by neighbouring pairs; GLM-4.5 to 4.7, mixtures of experts
/// with ordinary attention (GLM Team 2024, 2025).
public enum GLM: Architecture {
  public static let modelTypes = ["glm", "glm4", "glm4_moe"]

  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    if description.blocks.contains(where: { $0.feedForward?.mixture != nil }) { RoutedExperts.respell(&json, for: description) }
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let isMixture = config.modelType == "glm4_moe"
    let defaults = DecoderDefaults(headSize: isMixture ? nil : 128, keyValueHeads: isMixture ? 8 : 2, epsilon: isMixture ? 1e-5 : 1.5625e-7)
    var model = try keys.description(config, defaults)
    var rotary = try RotaryDescription(config, fraction: 0.5, headSize: keys.headSize(defaults))
    rotary.isInterleaved = !isMixture
    let hasBias = keys.attention_bias ?? !isMixture
    let normalizes = config.json["use_qk_norm"]?.bool == true
    model.eachBlock { _, block in
      block.attention?.rotary = rotary
      block.attention?.hasProjectionBias = hasBias
      block.attention?.hasOutputBias = false
      block.attention?.queryKeyNorm = normalizes ? .head : nil
      block.feedForward?.hasBias = false
      guard !isMixture else { return }
      block.feedForward?.linears = FeedForwardLinears(.fused("mlp.gate_up_proj"), down: "mlp.down_proj")
      if config.modelType == "glm4" {
        block.norms.afterAttention = "post_self_attn_layernorm"
        block.norms.afterFeedForward = "post_mlp_layernorm"
      }
    }
    guard isMixture else { return model }
    try config.decode(RoutedExperts.self).apply(
      to: &model, .init(experts: 128, perToken: 8, size: 1408, denseLayers: 1), correction: "mlp.gate.e_score_correction_bias")
    return model
  }
}
