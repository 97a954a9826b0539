public import CheckpointIO
import StrictJSON

/// Phi-3.5-MoE: LayerNorm, biases in attention and on the logits, and two experts a token, chosen one after the other by SparseMixer
/// (Abdin et al. 2024; Liu et al. 2024, "GRIN").
public enum PhiMoE: Architecture {
  public static let modelTypes = ["phimoe"]

  private struct Keys: Decodable {
    var num_local_experts, num_experts_per_tok: Int?
    var router_jitter_noise: Double?
    var lm_head_bias: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let config = try gained(config)
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 8, epsilon: 1e-5, rotaryBase: 1e6))
    let norm = NormDescription(.layer, epsilon: model.normEpsilon, hasBias: true)
    model.norm = norm
    model.hasHeadBias = own.lm_head_bias ?? false
    guard own.num_experts_per_tok ?? 2 == 2 else {
      throw .unsupportedOption(
        option: "num_experts_per_tok", value: "\(own.num_experts_per_tok ?? 0)", reason: "SparseMixer sends every token to two experts")
    }
    let tolerance = Float(own.router_jitter_noise ?? 0.01)
    guard tolerance >= 0 else {
      throw .unsupportedOption(option: "router_jitter_noise", value: "\(tolerance)", reason: "it must not be negative")
    }
    var mixture = try MixtureDescription(
      experts: own.num_local_experts ?? 16, expertsPerToken: 2, normalizesWeights: false, router: "block_sparse_moe.gate",
      prefix: "block_sparse_moe.experts."
    ).checked()
    mixture.scoring = .sparseMixer(tolerance: tolerance)
    model.eachBlock { _, block in
      block.norm = norm
      block.attention?.window = keys.sliding_window
      block.feedForward?.hasBias = false
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "w1", up: "w3"), down: "w2")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  /// The configuration with what cosines and sines are multiplied by under the name that other families have for it.
  ///
  /// - Throws: where it differs between short sequences and long ones.
  private static func gained(_ config: ModelConfig) throws(CheckpointError) -> ModelConfig {
    var config = config
    for key in ["rope_scaling", "rope_parameters"] {
      guard var scaling = config.json[key], let short = scaling["short_mscale"]?.double else { continue }
      guard scaling["long_mscale"]?.double == short else {
        throw .unsupportedOption(
          option: "\(key).long_mscale", value: scaling["long_mscale"]?.text() ?? "absent",
          reason: "it is computed where it equals short_mscale")
      }
      scaling["attention_factor"] = .double(short)
      config.json[key] = scaling
    }
    return config
  }
}
