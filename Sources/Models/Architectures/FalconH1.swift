public import CheckpointIO
import StrictJSON

/// Falcon-H1: attention and Mamba-2 side by side in every layer, and a multiplier on nearly everything (Zuo et al. 2025).
public enum FalconH1: Architecture {
  public static let modelTypes = ["falcon_h1"]

  private struct Keys: Decodable {
    var lm_head_multiplier, embedding_multiplier, key_multiplier, attention_out_multiplier, attention_in_multiplier: Double?
    var ssm_in_multiplier, ssm_out_multiplier: Double?
    var mlp_multipliers, ssm_multipliers: [Double]?
    var projectors_bias, mamba_rms_norm, mamba_norm_before_gate: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 8, epsilon: 1e-5))
    model.finalNorm = "model.final_layernorm"
    model.embeddingScale = Float(own.embedding_multiplier ?? 1)
    model.logitScale = Float(own.lm_head_multiplier ?? 1)
    let mamba = try mixer(own, model, config)
    let attentionIn = own.attention_in_multiplier ?? 1
    guard attentionIn == 1 || keys.attention_bias != true else {
      throw .unsupportedOption(
        option: "attention_in_multiplier", value: "\(attentionIn)",
        reason: "with biases behind it, it cannot be taken as a factor of scores")
    }
    let networks = own.mlp_multipliers ?? [1, 1]
    guard networks.count == 2 else {
      throw .unsupportedOption(option: "mlp_multipliers", value: "\(networks.count) numbers", reason: "two are needed")
    }
    let headSize = try keys.headSize()
    // What multiplies the input of queries, keys and values multiplies the scores twice and the output once.
    let scores = attentionIn * attentionIn * (own.key_multiplier ?? 1) / Double(headSize).squareRoot()
    model.eachBlock { _, block in
      block.norms.beforeFeedForward = "pre_ff_layernorm"
      block.attention?.scale = Float(scores)
      block.attention?.outputScale = Float(attentionIn * (own.attention_out_multiplier ?? 1))
      block.mixers = TokenMixers(Array(block.mixers) + [mamba])
      block.feedForward?.outputScale = Float(networks[1])
      if networks[0] != 1, block.feedForward?.activation == .silu { block.feedForward?.activation = .scaledSilu(Float(networks[0])) }
      block.feedForward?.linears = FeedForwardLinears(
        .gated(gate: "feed_forward.gate_proj", up: "feed_forward.up_proj"), down: "feed_forward.down_proj")
    }
    return model
  }

  private static func mixer(_ own: Keys, _ model: ModelDescription, _ config: ModelConfig) throws(CheckpointError) -> Mamba2 {
    let keys = try config.decode(MambaKeys.self)
    let innerSize = keys.mamba_d_ssm ?? (config.json["mamba_d_ssm"] == nil ? 1024 : nil)
    var mamba = try keys.mixer(hiddenSize: model.hiddenSize, innerSize: innerSize, epsilon: model.normEpsilon, config)
    let input = own.ssm_in_multiplier ?? 1
    let parts = own.ssm_multipliers ?? Array(repeating: 1, count: 5)
    guard parts.count == 5 else {
      throw .unsupportedOption(option: "ssm_multipliers", value: "\(parts.count) numbers", reason: "five are needed")
    }
    guard input == 1 || !mamba.hasInputBias else {
      throw .unsupportedOption(
        option: "ssm_in_multiplier", value: "\(input)", reason: "with biases behind it, it cannot be taken as a factor of outputs")
    }
    mamba.multipliers.gates = Float(input * parts[0])
    mamba.multipliers.values = Float(input * parts[1])
    mamba.multipliers.writers = Float(input * parts[2])
    mamba.multipliers.readers = Float(input * parts[3])
    mamba.multipliers.steps = Float(input * parts[4])
    mamba.outputScale = Float(own.ssm_out_multiplier ?? 1)
    mamba.hasOutputBias = own.projectors_bias ?? false
    mamba.norm = own.mamba_rms_norm ?? false ? own.mamba_norm_before_gate ?? true ? .beforeGate : .afterGate : .none
    return mamba
  }
}
