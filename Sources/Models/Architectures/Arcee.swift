public import CheckpointIO

/// Arcee's AFM: Llama whose networks have no gate and square what ReLU leaves (Arcee AI 2025).
public enum Arcee: Architecture {
  public static let modelTypes = ["arcee"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var model = try config.decode(DecoderKeys.self).description(config, DecoderDefaults(epsilon: 1e-5, activation: "relu2"))
    model.eachBlock { _, block in block.feedForward?.linears = FeedForwardLinears(.plain("mlp.up_proj"), down: "mlp.down_proj") }
    return model
  }
}
