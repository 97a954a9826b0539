public import CheckpointIO

/// StarCoder 2: LayerNorm, biases, networks without gates, and a window on every layer (Lozhkov et al. 2024).
public enum Starcoder2: Architecture {
  public static let modelTypes = ["starcoder2"]

  private struct Keys: Decodable {
    var norm_epsilon: Float?
    var use_bias: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 2, isTied: true, activation: "gelu_pytorch_tanh"))
    let norm = NormDescription(.layer, epsilon: own.norm_epsilon ?? 1e-5, hasBias: true)
    model.norm = norm
    let hasBias = own.use_bias ?? true
    model.eachBlock { _, block in
      block.norm = norm
      block.attention?.window = keys.sliding_window
      block.attention?.hasProjectionBias = hasBias
      block.attention?.hasOutputBias = hasBias
      block.feedForward?.hasBias = hasBias
      block.feedForward?.linears = FeedForwardLinears(.plain("mlp.c_fc"), down: "mlp.c_proj")
    }
    return model
  }
}
