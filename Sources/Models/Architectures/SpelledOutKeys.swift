public import CheckpointIO
import StrictJSON

extension ArchitectureCatalog {
  /// `config.json` with every key written out that some runtime takes otherwise where it is absent, and says what the model is.
  ///
  /// What a missing key means is the reader's choice. transformers and vLLM take the defaults of the family's class, mlx-lm those of its own
  /// classes (tied embeddings for all that it computes as Llama), converters read the file as it stands, and older readers of each know the
  /// rotation's base and scaling only beside the other keys, not inside `rope_parameters`. Keys that are there keep their place and spelling.
  ///
  /// - Parameter isTied: whether the head is the embedding in what is stored.
  /// - Throws: what describing the configuration throws; `CheckpointError.inexpressible` where the keys would not read as the same model.
  public func spelledOut(_ config: ModelConfig, isTied: Bool) throws(CheckpointError) -> ModelConfig {
    guard try describe(config).hasLogits else { return config }
    var settled = config
    if config.json["architectures"] == nil, let name = SpelledOutKeys.classes[config.modelType] {
      settled.json["architectures"] = .array([.string(name)])
    }
    settled.setKey("tie_word_embeddings", .bool(isTied))
    let description = try describe(settled)
    guard description.isTied == isTied else {
      throw .inexpressible(type: config.modelType, reason: "its head is \(isTied ? "" : "not ")the embedding")
    }
    var keys = SpelledOutKeys(config: settled, description: description)
    keys.spell()
    var spelled = settled
    if let text = settled.nestedText, text != keys.json {
      spelled.json["text_config"] = keys.json
    } else if settled.nestedText == nil {
      spelled.json = keys.json
    }
    var again = try describe(spelled)
    // Where it was not said, transformers' default is now.
    again.maximumPositions = description.maximumPositions
    guard again == description else {
      throw .inexpressible(type: config.modelType, reason: "it is what it is, once all its keys are written out")
    }
    return spelled
  }
}

extension ModelConfig {
  /// The language model's own configuration where the file is that of a larger model.
  fileprivate var nestedText: JSON? {
    json["hidden_size"] == nil ? json["text_config"].flatMap { $0.members == nil ? nil : $0 } : nil
  }

  /// Sets a key wherever readers look for it.
  fileprivate mutating func setKey(_ key: String, _ value: JSON) {
    if json[key] != value { json[key] = value }
    guard var text = nestedText, text[key] != value else { return }
    text[key] = value
    json["text_config"] = text
  }
}

/// Adds keys to a configuration, or to the part of it that is about the language model.
private struct SpelledOutKeys {
  var json: JSON
  let type: String
  let description: ModelDescription

  init(config: ModelConfig, description: ModelDescription) {
    json = config.nestedText ?? config.json
    type = config.modelType
    self.description = description
  }

  /// The classes of transformers; vLLM loads nothing without `architectures`, which files made from other containers lack.
  static let classes = [
    "falcon": "FalconForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM", "gemma4": "Gemma4ForConditionalGeneration", "gemma4_text": "Gemma4ForCausalLM",
    "gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "granite": "GraniteForCausalLM",
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "olmoe": "OlmoeForCausalLM", "opt": "OPTForCausalLM", "phi3": "Phi3ForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "smollm3": "SmolLM3ForCausalLM",
    "stablelm": "StableLmForCausalLM",
  ]

  /// A key that is absent, or null where a value is meant.
  private mutating func add(_ key: String, _ value: JSON?) {
    guard let value, json[key]?.isNull ?? true else { return }
    json[key] = value
  }

  private func number(_ value: Float) -> JSON { .double(Double("\(value)") ?? Double(value)) }

  mutating func spell() {
    guard let block = description.blocks.first else { return }
    switch type {
    case "gpt2": spellGPT2(block)
    case "gpt_neox":
      add("layer_norm_eps", number(description.normEpsilon))
      add("use_parallel_residual", .bool(block.isParallel))
      add("rotary_emb_base", (block.attention?.rotary?.base).map { .double($0) })
      add("rotary_pct", (block.attention?.rotary?.fraction).map { .double($0) })
      add("max_position_embeddings", .integer(2048))
    case "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "olmo2", "olmoe", "gemma", "gemma2", "gemma3_text",
      "gemma3",
      "phi3", "granite", "smollm3", "stablelm":
      spellDecoder(block)
    case "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text": spellGemma4()
    // All who read the other families take the defaults of transformers.
    default: break
    }
  }

  private mutating func spellGPT2(_ block: BlockDescription) {
    let positions = (description.positions?.count).map { JSON.integer($0) }
    add("n_embd", .integer(description.hiddenSize))
    add("n_layer", .integer(description.blocks.count))
    add("n_head", (block.attention?.heads).map { .integer($0) })
    add("n_positions", positions)
    add("n_ctx", positions)
    add("layer_norm_epsilon", number(description.normEpsilon))
  }

  /// mlx-lm takes for absent what is so of E2B, and does not know the list of layers that transformers saves.
  private mutating func spellGemma4() {
    let attention = description.blocks.compactMap(\.attention)
    let wide = attention.filter { $0.window == nil }
    if let narrow = attention.first(where: { $0.window != nil }) {
      add("head_dim", .integer(narrow.headSize))
      add("num_key_value_heads", .integer(narrow.keyValueHeads))
      add("sliding_window", narrow.window.map { .integer($0) })
    }
    if let last = wide.last, wide.allSatisfy({ $0.headSize == last.headSize && $0.keyValueHeads == last.keyValueHeads }) {
      let isKey = if case .keysAreValues = last.projections { true } else { false }
      add("attention_k_eq_v", .bool(isKey))
      add("global_head_dim", .integer(last.headSize))
      if isKey { add("num_global_key_value_heads", .integer(last.keyValueHeads)) }
    }
    add("layer_types", .array(attention.map { .string($0.window == nil ? "full_attention" : "sliding_attention") }))
    add("rope_parameters", Gemma4.rotations)
    add("rms_norm_eps", number(description.normEpsilon))
    add("num_kv_shared_layers", .integer(0))
    add("use_double_wide_mlp", .bool(false))
  }

  private mutating func spellDecoder(_ block: BlockDescription) {
    guard let attention = block.attention, let feedForward = block.feedForward else { return }
    add("num_key_value_heads", .integer(attention.keyValueHeads))
    if attention.heads * attention.headSize != description.hiddenSize || type == "qwen3" || type == "qwen3_moe" || type.hasPrefix("gemma") {
      add("head_dim", .integer(attention.headSize))
    }
    add(block.norm.kind == .layer ? "layer_norm_eps" : "rms_norm_eps", number(description.normEpsilon))
    if json["hidden_act"] == nil, json["hidden_activation"] == nil {
      let isLater = type.hasPrefix("gemma2") || type.hasPrefix("gemma3")
      add(isLater ? "hidden_activation" : "hidden_act", .string(feedForward.activation.spelling))
    }
    if ["llama", "granite", "smollm3", "olmo2", "olmoe"].contains(type) { add("attention_bias", .bool(attention.hasOutputBias)) }
    if ["llama", "granite", "smollm3"].contains(type) { add("mlp_bias", .bool(feedForward.hasBias)) }
    spellRotation()
    spellWindows()
    switch type {
    case "qwen3", "qwen3_moe": add("max_position_embeddings", .integer(32_768))
    case "granite":
      add("max_position_embeddings", .integer(2048))
      for key in ["embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier"] { add(key, .number("1.0")) }
    case "stablelm":
      add("use_qkv_bias", .bool(attention.hasProjectionBias))
      add("use_parallel_residual", .bool(block.isParallel))
    case "gemma2", "gemma3", "gemma3_text":
      add("query_pre_attn_scalar", .integer(256))
    default: break
    }
    guard let layer = description.blocks.lazy.compactMap(\.feedForward).first(where: { $0.mixture != nil }), let mixture = layer.mixture
    else {
      return
    }
    // transformers 5 saves what others call num_experts under Mixtral's name.
    add(type == "mixtral" ? "num_local_experts" : "num_experts", .integer(mixture.experts))
    add("num_experts_per_tok", .integer(mixture.expertsPerToken))
    guard type != "mixtral" else { return }
    add("norm_topk_prob", .bool(mixture.normalizesWeights))
    guard type.hasPrefix("qwen") else { return }
    add("moe_intermediate_size", .integer(layer.size))
    add("decoder_sparse_step", .integer(1))
    add("mlp_only_layers", .array([]))
    add("shared_expert_intermediate_size", (mixture.shared?.size).map { .integer($0) })
  }

  /// The rotation's base and scaling beside the other keys.
  private mutating func spellRotation() {
    let rotating = description.blocks.compactMap(\.attention).filter { $0.rotary != nil }
    let isGemma3 = type.hasPrefix("gemma3")
    guard let rotary = (isGemma3 ? rotating.first { $0.window == nil } : rotating.first)?.rotary else { return }
    add("rope_theta", .double(rotary.base))
    if isGemma3, let local = rotating.first(where: { $0.window != nil })?.rotary {
      add("rope_local_base_freq", .double(local.base))
    }
    if rotary.fraction != 1 { add("partial_rotary_factor", .double(rotary.fraction)) }
    if case .longrope(_, _, let positions, _) = rotary.scaling { add("original_max_position_embeddings", .integer(Int(positions))) }
    guard rotary.scaling != .none, let scaling = scaling(rotary) else { return }
    if json["rope_scaling"] != scaling { json["rope_scaling"] = scaling }
  }

  private func scaling(_ rotary: RotaryDescription) -> JSON? {
    var scaling = json["rope_scaling"].flatMap { $0.members?.isEmpty == false ? $0 : nil }
    if scaling == nil, var parameters = json["rope_parameters"] {
      if let part = parameters["full_attention"], part.members != nil { parameters = part }
      parameters["rope_theta"] = nil
      parameters["partial_rotary_factor"] = nil
      scaling = parameters
    }
    guard var scaling, scaling.members != nil else { return nil }
    // Their classes in mlx-lm ask for the older key.
    if ["phi3", "qwen2_moe"].contains(type), scaling["type"] == nil, let name = scaling["rope_type"] { scaling["type"] = name }
    if case .llama3(_, _, _, let positions) = rotary.scaling, scaling["original_max_position_embeddings"] == nil {
      scaling["original_max_position_embeddings"] = .integer(Int(positions))
    }
    return scaling
  }

  /// Which layers see how much, for readers that do not know the family's rule.
  private mutating func spellWindows() {
    let windows = description.blocks.map(\.attention?.window)
    guard let window = windows.lazy.compactMap({ $0 }).first else { return }
    add("sliding_window", .integer(window))
    guard windows.contains(nil) else { return }
    if ["qwen2", "qwen3", "qwen2_moe", "smollm3", "gemma2"].contains(type) || type.hasPrefix("gemma3") {
      add("layer_types", .array(windows.map { .string($0 == nil ? "full_attention" : "sliding_attention") }))
    }
    guard type.hasPrefix("gemma3") else { return }
    let pattern = (2..<windows.count + 1).first { step in windows.indices.allSatisfy { (windows[$0] == nil) == (($0 + 1) % step == 0) } }
    // What was true of more layers need not be of these.
    if json["sliding_window_pattern"]?.integer != pattern || pattern == nil {
      json["sliding_window_pattern"] = pattern.map { .integer($0) }
    }
  }
}

extension Activation {
  /// What transformers calls it.
  fileprivate var spelling: String {
    switch self {
    case .silu, .scaledSilu, .clampedSwiglu: "silu"
    case .geluTanh: "gelu_pytorch_tanh"
    case .gelu: "gelu"
    case .relu: "relu"
    case .reluSquared: "relu2"
    case .xielu: "xielu"
    }
  }
}
