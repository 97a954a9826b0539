public import CheckpointIO
import StrictJSON

/// Phi-3 and Phi-4-mini: Llama with queries, keys and values from one linear, and gate and up from another (Abdin et al. 2024).
public enum Phi3: Architecture {
  public static let modelTypes = ["phi3"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var config = config
    // LongRoPE needs it, and the family has a default.
    if config.json["original_max_position_embeddings"] == nil { config.json["original_max_position_embeddings"] = .integer(4096) }
    var model = try keys.description(config, DecoderDefaults(epsilon: 1e-5))
    model.eachBlock { _, block in
      block.attention?.window = keys.sliding_window
      block.attention?.projections = .fused("self_attn.qkv_proj", .blocks)
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
      block.feedForward?.hasBias = false
      block.feedForward?.linears = FeedForwardLinears(.fused("mlp.gate_up_proj"), down: "mlp.down_proj")
    }
    return model
  }
}
