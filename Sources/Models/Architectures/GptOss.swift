public import CheckpointIO
import StrictJSON

/// gpt-oss: attention with sinks and biases, windows on every other layer, and mixtures of experts with a clamped SwiGLU (OpenAI 2025).
public enum GptOss: Architecture {
  public static let modelTypes = ["gpt_oss"]

  private struct Keys: Decodable {
    var num_local_experts, num_experts, num_experts_per_tok, experts_per_token: Int?
    var swiglu_alpha, swiglu_limit: Double?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config
    if config.json["rope_scaling"]?.members == nil, config.json["rope_parameters"]?.members == nil {
      config.json["rope_scaling"] = Self.stretched
    }
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(headSize: 64, keyValueHeads: 8, epsilon: 1e-5, rotaryBase: 150_000))
    guard model.blocks[0].feedForward?.activation == .silu else {
      throw .unsupportedOption(option: "hidden_act", value: keys.hidden_act ?? "", reason: "its experts are computed with a clamped SiLU")
    }
    let gain = Float(own.swiglu_alpha ?? 1.702)
    let limit = Float(own.swiglu_limit ?? 7)
    guard limit > 0, gain.isFinite else {
      throw .unsupportedOption(option: "swiglu_limit", value: "\(limit)", reason: "it must be positive")
    }
    let slides = try keys.slides { $0 % 2 == 0 }
    var mixture = try MixtureDescription(
      experts: own.num_local_experts ?? own.num_experts ?? 128, expertsPerToken: own.num_experts_per_tok ?? own.experts_per_token ?? 4,
      normalizesWeights: true, router: "mlp.router", prefix: "mlp.experts."
    ).checked()
    mixture.hasRouterBias = true
    mixture.stacked = StackedExperts(
      readers: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj", isTransposed: true, order: .interleaved)
    let hasBias = config.json["attention_bias"]?.bool ?? true
    model.eachBlock { layer, block in
      block.attention?.window = slides[layer] ? keys.sliding_window ?? 128 : nil
      block.attention?.hasSinks = true
      block.attention?.hasProjectionBias = hasBias
      block.attention?.hasOutputBias = hasBias
      block.feedForward?.hasBias = true
      block.feedForward?.activation = .clampedSwiglu(gain: gain, limit: limit)
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  /// What a configuration without a word on the rotation means.
  private static let stretched = JSON.object([
    .init("rope_type", .string("yarn")), .init("factor", .double(32)), .init("beta_fast", .double(32)), .init("beta_slow", .double(1)),
    .init("truncate", .bool(false)), .init("original_max_position_embeddings", .integer(4096)),
  ])
}
