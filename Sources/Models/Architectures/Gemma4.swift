public import CheckpointIO
public import StrictJSON

/// The language models of Gemma 4, dense and with a mixture beside the dense network: heads of another size where attention sees everything,
/// keys that are values there, values without a scale, two rotations, and a number for every block that its output is multiplied by
/// (Google DeepMind 2026). Those of E2B and E4B have inputs for every layer and layers that share keys and values, which is not computed.
public enum Gemma4: Architecture {
  public static let modelTypes = ["gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"]

  private struct Keys: Decodable {
    var global_head_dim, num_global_key_value_heads, hidden_size_per_layer_input, num_kv_shared_layers: Int?
    var num_experts, top_k_experts, moe_intermediate_size: Int?
    var attention_k_eq_v, enable_moe_block: Bool?
    var final_logit_softcapping: Double?
    var use_bidirectional_attention: String?
    var per_layer_config: [String: [String: Int?]]?
  }

  /// What some layers have of their own is listed by their numbers in what transformers saves.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    guard json["per_layer_config"]?.members != nil else { return }
    let layers = description.blocks.enumerated().compactMap { layer, block -> JSON.Member? in
      guard let attention = block.attention, attention.window == nil else { return nil }
      let sizes: [JSON.Member] = [
        .init("head_dim", .integer(attention.headSize)), .init("num_key_value_heads", .integer(attention.keyValueHeads)),
      ]
      return .init("\(layer)", .object(sizes))
    }
    json["per_layer_config"] = .object(layers)
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config.ofText
    // What would be the rotation of all layers elsewhere means nothing here.
    for key in ["rope_scaling", "rope_theta", "partial_rotary_factor"] { config.json[key] = nil }
    if config.json["rope_parameters"]?.isNull ?? true { config.json["rope_parameters"] = rotations }
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    try refuse(own, isUnified: config.modelType.hasPrefix("gemma4_unified"))
    var model = try keys.description(
      config, DecoderDefaults(headSize: 256, keyValueHeads: 4, isTied: true, activation: "gelu_pytorch_tanh"))
    model.embeddingScale = Float(Double(model.hiddenSize).squareRoot())
    model.logitCap = own.final_logit_softcapping.map { Float($0) }
    var slides = try keys.slides { ($0 + 1) % 6 != 0 }
    // Whatever is listed, the last layer sees everything.
    slides[slides.count - 1] = false
    let window = try config.positive(
      keys.sliding_window ?? (config.modelType.hasPrefix("gemma4_unified") ? 1024 : 512), "sliding_window")
    let sizes = try sizes(own, keys, model.blocks[0].attention, slides)
    let rotaries = try sizes.enumerated().map { layer, size throws(CheckpointError) in
      try RotaryDescription(config, headSize: size.head, layerType: slides[layer] ? "sliding_attention" : "full_attention")
    }
    let mixture = own.enable_moe_block == true ? try mixture(own, besides: keys.intermediate_size) : nil
    model.eachBlock { layer, block in
      block.norms = NormPlacement(
        afterAttention: "post_attention_layernorm", beforeFeedForward: "pre_feedforward_layernorm",
        afterFeedForward: "post_feedforward_layernorm")
      block.streamScale = "layer_scalar"
      block.attention?.window = slides[layer] ? window : nil
      block.attention?.headSize = sizes[layer].head
      block.attention?.keyValueHeads = sizes[layer].keyValueHeads
      block.attention?.rotary = rotaries[layer]
      block.attention?.queryKeyNorm = .head
      block.attention?.normalizesValues = true
      block.attention?.scale = 1
      if !slides[layer], own.attention_k_eq_v == true {
        block.attention?.projections = .keysAreValues(query: "self_attn.q_proj", key: "self_attn.k_proj")
      }
      block.feedForward?.hasBias = false
      guard let mixture else { return }
      block.feedForward?.size = own.moe_intermediate_size ?? 0
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
    return model
  }

  /// What a configuration without a word on the rotation means.
  static let rotations = JSON.object([
    .init("sliding_attention", .object([.init("rope_type", .string("default")), .init("rope_theta", .double(10_000))])),
    .init(
      "full_attention",
      .object([
        .init("rope_type", .string("proportional")), .init("rope_theta", .double(1_000_000)), .init("partial_rotary_factor", .double(0.25)),
      ])),
  ])

  private static func refuse(_ own: Keys, isUnified: Bool) throws(CheckpointError) {
    let inputs = isUnified ? 0 : own.hidden_size_per_layer_input ?? 256
    guard inputs == 0 else {
      throw .unsupportedOption(
        option: "hidden_size_per_layer_input", value: "\(inputs)",
        reason: "inputs for every layer, as of E2B and E4B, are not computed; 0, as of 12B, 26B-A4B and 31B, is")
    }
    guard own.num_kv_shared_layers ?? 0 == 0 else {
      throw .unsupportedOption(
        option: "num_kv_shared_layers", value: "\(own.num_kv_shared_layers ?? 0)",
        reason: "layers that attend to the keys and values of earlier ones, as of E2B and E4B, are not computed")
    }
    guard own.use_bidirectional_attention ?? "vision" == "vision" else {
      throw .unsupportedOption(
        option: "use_bidirectional_attention", value: own.use_bidirectional_attention ?? "", reason: "attention over text is causal here")
    }
  }

  /// Sizes of the heads of every layer: those that see everything have others, by two keys or by a list of layers.
  private static func sizes(
    _ own: Keys, _ keys: DecoderKeys, _ usual: AttentionDescription?, _ slides: [Bool]
  ) throws(CheckpointError) -> [(head: Int, keyValueHeads: Int)] {
    let (head, keyValueHeads) = (usual?.headSize ?? 0, usual?.keyValueHeads ?? 0)
    let wide = own.attention_k_eq_v == true ? own.num_global_key_value_heads ?? keyValueHeads : keyValueHeads
    var sizes = slides.map { $0 || own.per_layer_config != nil ? (head, keyValueHeads) : (own.global_head_dim ?? 512, wide) }
    for (layer, changes) in own.per_layer_config ?? [:] {
      guard let index = Int(layer), slides.indices.contains(index) else {
        throw .unsupportedOption(option: "per_layer_config", value: layer, reason: "it is about layers 0 to \(slides.count - 1)")
      }
      for (key, value) in changes {
        switch key {
        case "head_dim": sizes[index].0 = value ?? 0
        case "num_key_value_heads": sizes[index].1 = value ?? 0
        default:
          throw .unsupportedOption(
            option: "per_layer_config", value: key, reason: "head_dim and num_key_value_heads may differ from layer to layer")
        }
      }
    }
    for (head, keyValueHeads) in sizes {
      guard head > 0, head % 2 == 0, head <= 1 << 20 else {
        throw .unsupportedOption(option: "global_head_dim", value: "\(head)", reason: "rotary embedding needs an even size")
      }
      guard keyValueHeads > 0, keys.num_attention_heads % keyValueHeads == 0 else {
        throw .unsupportedOption(
          option: "num_global_key_value_heads", value: "\(keyValueHeads)",
          reason: "it does not divide the \(keys.num_attention_heads) attention heads")
      }
    }
    return sizes
  }

  /// - Parameter size: features of the network that sees every token.
  private static func mixture(_ own: Keys, besides size: Int) throws(CheckpointError) -> MixtureDescription {
    guard let experts = own.num_experts, let perToken = own.top_k_experts, own.moe_intermediate_size != nil else {
      throw .unsupportedOption(
        option: "enable_moe_block", value: "true", reason: "it needs num_experts, top_k_experts and moe_intermediate_size")
    }
    var mixture = try MixtureDescription(
      experts: experts, expertsPerToken: perToken, normalizesWeights: true, router: "router.proj", prefix: "experts.",
      shared: .init(size: size, prefix: "mlp.", gate: nil)
    ).checked()
    mixture.expertScale = "router.per_expert_scale"
    mixture.ownNorms = .init(
      beforeRouter: "router.scale", beforeExperts: "pre_feedforward_layernorm_2", afterExperts: "post_feedforward_layernorm_2",
      afterShared: "post_feedforward_layernorm_1")
    mixture.stacked = StackedExperts(readers: "experts.gate_up_proj", down: "experts.down_proj")
    return mixture
  }
}
