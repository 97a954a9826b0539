public import CheckpointIO

/// Nemotron 4 and Minitron: LayerNorm whose weights are stored less one, squared ReLU without gates, half of every head rotated
/// (Parmar et al. 2024).
public enum Nemotron: Architecture {
  public static let modelTypes = ["nemotron"]

  private struct Keys: Decodable {
    var norm_eps: Float?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(activation: "relu2"))
    let norm = NormDescription(.layer, epsilon: own.norm_eps ?? 1e-5, offset: 1, hasBias: true)
    model.norm = norm
    let rotary = try RotaryDescription(config, fraction: 0.5, headSize: keys.headSize())
    model.eachBlock { _, block in
      block.norm = norm
      block.attention?.rotary = rotary
      block.feedForward?.linears = FeedForwardLinears(.plain("mlp.up_proj"), down: "mlp.down_proj")
    }
    return model
  }
}
