public import CheckpointIO
public import StrictJSON

/// Granite 4: Mamba-2 layers with few of attention between, without positions; Granite's multipliers; mixtures of experts, or networks alone
/// (Granite Team 2025).
public enum GraniteHybrid: Architecture {
  public static let modelTypes = ["granitemoehybrid"]

  private struct Keys: Decodable {
    var embedding_multiplier, logits_scaling, residual_multiplier, attention_multiplier: Double?
    var shared_intermediate_size: Int?
    var position_embedding_type: String?
  }

  private static let recurrent = ["mamba", "linear_attention"]

  /// Which layers are attention is a list in any case.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    let key = json["layers_block_type"] == nil ? "layer_types" : "layers_block_type"
    json[key] = .array(description.blocks.map { .string($0.attention == nil ? "mamba" : "attention") })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    keys.layer_types = keys.layer_types ?? config.json["layers_block_type"]?.elements?.compactMap(\.string)
    var model = try keys.description(config)
    let mamba = try config.decode(MambaKeys.self).mixer(
      hiddenSize: model.hiddenSize, innerSize: nil, epsilon: model.normEpsilon, config)
    model.embeddingScale = Float(own.embedding_multiplier ?? 1)
    model.logitScale = Float(1 / (own.logits_scaling ?? 1))
    let layers = try LayerTypes(
      keys.layer_types, count: model.blocks.count, known: recurrent + ["attention", "full_attention"]
    ) { _ in "mamba" }
    let experts = try config.decode(GraniteExperts.self)
    let mixture = experts.num_local_experts == 0 ? nil : try experts.layer(of: model, hasShared: true)
    model.eachBlock { layer, block in
      block.residualScale = Float(own.residual_multiplier ?? 1)
      block.attention?.scale = Float(own.attention_multiplier ?? 1)
      if own.position_embedding_type != "rope" { block.attention?.rotary = nil }
      if recurrent.contains(layers.types[layer]) {
        var own = mamba
        own.hasOutputBias = own.hasInputBias
        block.mixers = [own]
      }
      block.feedForward?.hasBias = false
      block.feedForward?.size = own.shared_intermediate_size ?? 1024
      block.feedForward?.linears = GraniteExperts.shared.prefixed("shared_mlp.")
      if let mixture { block.feedForward = mixture }
    }
    return model
  }
}
