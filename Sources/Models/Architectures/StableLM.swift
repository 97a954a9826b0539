public import CheckpointIO

/// StableLM 2 and StableLM 3B: Llama with LayerNorm and partly rotated heads (Bellagente et al. 2024).
public enum StableLM: Architecture {
  public static let modelTypes = ["stablelm"]

  private struct Keys: Decodable {
    var layer_norm_eps: Float?
    var use_qkv_bias, qk_layernorm, use_parallel_residual: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 32))
    let own = try config.decode(Keys.self)
    guard own.qk_layernorm != true else {
      throw .unsupportedOption(option: "qk_layernorm", value: "true", reason: "a norm for every head is not computed here")
    }
    let norm = NormDescription(.layer, epsilon: own.layer_norm_eps ?? 1e-5, hasBias: true)
    model.norm = norm
    let rotary = try RotaryDescription(config, fraction: 0.25, headSize: keys.headSize())
    model.eachBlock { _, block in
      block.norm = norm
      block.attention?.rotary = rotary
      block.attention?.hasProjectionBias = own.use_qkv_bias ?? false
      block.attention?.hasOutputBias = false
      block.feedForward?.hasBias = false
      if own.use_parallel_residual == true {
        block.isParallel = true
        block.norms.beforeFeedForward = block.norms.beforeAttention
      }
    }
    return model
  }
}
