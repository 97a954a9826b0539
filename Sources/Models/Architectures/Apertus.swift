public import CheckpointIO
import StrictJSON

/// Apertus: Llama with norms on queries and keys, and networks without a gate whose activation, xIELU, is learned layer by layer (Apertus 2025).
public enum Apertus: Architecture {
  public static let modelTypes = ["apertus"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config
    if config.json["rope_scaling"]?.members == nil, config.json["rope_parameters"]?.members == nil {
      config.json["rope_parameters"] = Self.stretched
    }
    var keys = try config.decode(DecoderKeys.self)
    let isLearned = keys.hidden_act ?? "xielu" == "xielu"
    // Read as another one and then set, for it is known by name to this family alone.
    if isLearned { keys.hidden_act = "silu" }
    var model = try keys.description(config, DecoderDefaults(epsilon: 1e-5, rotaryBase: 12_000_000))
    model.eachBlock { _, block in
      block.norms = NormPlacement(beforeAttention: "attention_layernorm", beforeFeedForward: "feedforward_layernorm")
      block.attention?.queryKeyNorm = .head
      block.feedForward?.hasBias = false
      if isLearned { block.feedForward?.activation = .xielu("mlp.act_fn") }
      block.feedForward?.linears = FeedForwardLinears(.plain("mlp.up_proj"), down: "mlp.down_proj")
    }
    return model
  }

  /// What a configuration without a word on the rotation means.
  private static let stretched = JSON.object([
    .init("rope_type", .string("llama3")), .init("rope_theta", .double(12_000_000)), .init("factor", .double(8)),
    .init("low_freq_factor", .double(1)), .init("high_freq_factor", .double(4)), .init("original_max_position_embeddings", .integer(8192)),
  ])
}
