public import CheckpointIO
public import StrictJSON

/// ERNIE 4.5, dense and with mixtures of experts: Llama whose heads are rotated by neighbouring pairs; experts are weighed by the softmax and
/// chosen with a correction (Baidu 2025).
public enum Ernie: Architecture {
  public static let modelTypes = ["ernie4_5", "ernie4_5_moe"]

  private struct Keys: Decodable {
    var use_bias: Bool?
    var moe_k, moe_num_experts, moe_num_shared_experts, moe_intermediate_size: Int?
    var moe_layer_start_index, moe_layer_end_index, moe_layer_interval: Int?
  }

  /// Which layers are mixtures is a stretch of their numbers.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    let mixtures = description.blocks.indices.filter { description.blocks[$0].feedForward?.mixture != nil }
    guard let first = mixtures.first, let last = mixtures.last else { return }
    json["moe_layer_start_index"] = .integer(first)
    json["moe_layer_end_index"] = .integer(last)
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    let isMixture = config.modelType == "ernie4_5_moe"
    let defaults = DecoderDefaults(
      headSize: isMixture ? nil : 128, keyValueHeads: isMixture ? 4 : 2, epsilon: 1e-5, isTied: true, rotaryBase: 5e5)
    var model = try keys.description(config, defaults)
    let mixture = isMixture ? try mixture(own) : nil
    let first = own.moe_layer_start_index ?? 1
    let last = own.moe_layer_end_index ?? -1
    let step = try config.positive(own.moe_layer_interval ?? 1, "moe_layer_interval")
    model.eachBlock { layer, block in
      block.attention?.rotary?.isInterleaved = true
      block.attention?.hasProjectionBias = own.use_bias ?? false
      block.attention?.hasOutputBias = own.use_bias ?? false
      block.feedForward?.hasBias = own.use_bias ?? false
      guard let mixture, layer >= first, last < 0 || layer <= last, (layer + 1) % step == 0 else { return }
      block.feedForward?.size = own.moe_intermediate_size ?? 1536
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  private static func mixture(_ own: Keys) throws(CheckpointError) -> MixtureDescription {
    let shared = (own.moe_num_shared_experts ?? 2) * (own.moe_intermediate_size ?? 1536)
    var mixture = try MixtureDescription(
      experts: own.moe_num_experts ?? 64, expertsPerToken: own.moe_k ?? 6, normalizesWeights: true, router: "mlp.gate",
      prefix: "mlp.experts.", shared: shared > 0 ? .init(size: shared, prefix: "mlp.shared_experts.", gate: nil) : nil
    ).checked()
    mixture.correction = "mlp.moe_statics.e_score_correction_bias"
    mixture.correctionIsRow = true
    return mixture
  }
}
