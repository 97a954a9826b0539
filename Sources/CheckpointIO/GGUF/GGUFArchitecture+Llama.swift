internal import StrictJSON

extension GGUFNames {
  static let attention = [
    ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"),
  ]
  static let norms = [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")]
  static let queryKeyNorms = [("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm")]
  static let ungatedNetwork = [("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")]
  static let network = [("mlp.gate_proj", "ffn_gate")] + ungatedNetwork
  /// Norms behind the layers alone, where the family calls them so.
  static let normsBehind = [("post_attention_layernorm", "post_attention_norm"), ("post_feedforward_layernorm", "post_ffw_norm")]
  static let llama = GGUFNames(modules: attention + norms + network)
}

extension GGUFArchitecture {
  static let rotatedNeighbours: [String: GGUFRows] = ["attn_q": .queries, "attn_k": .keys]

  /// An architecture whose heads are rotated by neighbouring rows, as Llama's are.
  static func rotatingNeighbours(
    _ name: String, modelTypes: [String], mark: String? = nil, names: GGUFNames = .llama,
    change: (inout GGUFArchitecture) -> Void = { _ in }
  ) -> GGUFArchitecture {
    var architecture = GGUFArchitecture(name, modelTypes: modelTypes, mark: mark, names: names)
    architecture.rows = rotatedNeighbours
    architecture.headsAreFree = true
    change(&architecture)
    return architecture
  }

  /// Llama and its nearest relatives.
  static let likeLlama: [GGUFArchitecture] = [
    rotatingNeighbours("llama", modelTypes: ["llama", "mistral"]) {
      ($0.hasOutputBias, $0.hasNetworkBias) = (true, true)
      $0.keys = [.vocabularySize, .rotatedSize]
      ($0.readsRotaryFactors, $0.readsLongFactors) = (true, true)
    },
    rotatingNeighbours("granite", modelTypes: ["granite"]) {
      ($0.hasOutputBias, $0.hasNetworkBias) = (true, true)
      $0.keys = granite
      ($0.readsRotaryFactors, $0.readsLongFactors) = (true, true)
      $0.adapt = { reading, json throws(CheckpointError) in try reading.setMultipliers(in: &json) }
    },
    rotatingNeighbours("smollm3", modelTypes: ["smollm3"]) {
      $0.keys = [.vocabularySize, .rotatedSize]
      // Its graph leaves out every fourth layer, whatever the file says.
      $0.adapt = { _, json in json["no_rope_layer_interval"] = .integer(4) }
    },
    rotatingNeighbours(
      "arcee", modelTypes: ["arcee"], names: GGUFNames(modules: GGUFNames.attention + GGUFNames.norms + GGUFNames.ungatedNetwork)
    ) {
      $0.keys = [.vocabularySize, .rotatedSize]
      $0.activation = "relu2"
      $0.readsRotaryFactors = true
    },
    rotatingNeighbours("mistral3", modelTypes: ["ministral3"]) {
      ($0.hasOutputBias, $0.hasNetworkBias) = (true, true)
      $0.keys = [.vocabularySize, .rotatedSize, .temperature]
      ($0.readsYarn, $0.readsRotaryFactors, $0.readsLongFactors) = (true, true, true)
      $0.adapt = { reading, json in
        json["sliding_window"] = .null
        guard let strength = reading.number("attention.temperature_scale"), strength != 0, json["rope_scaling"] != nil else { return }
        json["rope_scaling"]?["llama_4_scaling_beta"] = .number("\(Float(strength))")
      }
    },
  ]

  static let granite: Set<GGUFKey> = [.vocabularySize, .rotatedSize, .embeddingScale, .residualScale, .attentionScale, .logitDivisor]

  /// Families with RMSNorm whose heads are rotated by halves, or as their checkpoints have them.
  static let otherRootMeanSquare: [GGUFArchitecture] = [qwen2, qwen3, phi3, olmo2, seedOSS, exaone4, glm4]

  private static let qwen2 = {
    var architecture = GGUFArchitecture("qwen2", modelTypes: ["qwen2"], names: .llama)
    architecture.sharesBias = false
    return architecture
  }()

  private static let qwen3 = {
    var architecture = GGUFArchitecture(
      "qwen3", modelTypes: ["qwen3"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.queryKeyNorms + GGUFNames.norms + GGUFNames.network))
    architecture.headsAreFree = true
    return architecture
  }()

  private static let phi3 = {
    var architecture = GGUFArchitecture(
      "phi3", modelTypes: ["phi3"],
      names: GGUFNames(
        modules: [
          ("self_attn.qkv_proj", "attn_qkv"), ("self_attn.o_proj", "attn_output"), ("mlp.gate_up_proj", "ffn_up"),
          ("mlp.down_proj", "ffn_down"),
        ] + GGUFNames.norms))
    architecture.keys = [.rotatedSize, .noWindow]
    architecture.readsLongFactors = true
    architecture.adapt = { _, json in
      // llama.cpp knows the key and leaves windows out.
      json["sliding_window"] = .null
      if let original = json["rope_scaling"]?["original_max_position_embeddings"] { json["original_max_position_embeddings"] = original }
    }
    return architecture
  }()

  /// OLMo 2 has no windows, and a file with windows is OLMo 3's.
  private static let olmo2 = {
    var architecture = GGUFArchitecture(
      "olmo2", modelTypes: ["olmo2", "olmo3"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.queryKeyNorms + GGUFNames.normsBehind + GGUFNames.network))
    architecture.head = .required
    architecture.windows = GGUFWindows(period: 4, isOptional: true)
    architecture.adapt = { _, json in if json["sliding_window"] != nil { json["model_type"] = .string("olmo3") } }
    return architecture
  }()

  private static let seedOSS = {
    var architecture = GGUFArchitecture(
      "seed_oss", modelTypes: ["seed_oss"],
      names: GGUFNames(
        modules: GGUFNames.attention + [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "post_attention_norm")]
          + GGUFNames.network))
    (architecture.sharesBias, architecture.headsAreFree) = (false, true)
    architecture.adapt = { reading, json in json["attention_out_bias"] = .bool(reading.has("blk.0.attn_output.bias")) }
    return architecture
  }()

  /// Windows of EXAONE 4 are read of models with 64 layers only; all others have none.
  private static let exaone4 = {
    var architecture = GGUFArchitecture(
      "exaone4", modelTypes: ["exaone4"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.queryKeyNorms + GGUFNames.normsBehind + GGUFNames.network))
    architecture.keys = [.vocabularySize]
    architecture.readsRotaryFactors = true
    architecture.windows = GGUFWindows(period: 4, isOptional: true, width: 4096)
    architecture.adapt = { reading, json throws(CheckpointError) in
      guard try reading.size("block_count") != 64 else { return }
      json["sliding_window"] = .null
      json["layer_types"] = nil
    }
    return architecture
  }()

  private static let glm4 = {
    var architecture = GGUFArchitecture(
      "glm4", modelTypes: ["glm4"],
      names: GGUFNames(
        modules: GGUFNames.attention + GGUFNames.norms + [
          ("post_self_attn_layernorm", "post_attention_norm"), ("post_mlp_layernorm", "post_ffw_norm"), ("mlp.gate_up_proj", "ffn_up"),
          ("mlp.down_proj", "ffn_down"),
        ]))
    architecture.keys = [.rotatedSize]
    (architecture.sharesBias, architecture.headsAreFree) = (false, true)
    // Where the key is missing, whole heads are rotated; the family takes half of them unless told otherwise.
    architecture.adapt = { _, json in if json["partial_rotary_factor"] == nil { json["partial_rotary_factor"] = .double(1) } }
    return architecture
  }()
}

extension GGUFReading {
  /// Granite's multipliers; where a key is missing llama.cpp multiplies by nothing, and divides scores as others do.
  func setMultipliers(in json: inout JSON) throws(CheckpointError) {
    func multiplier(_ name: String) -> JSON? {
      number(name).flatMap { $0 == 0 ? nil : .number("\(Float($0))") }
    }
    guard let logits = multiplier("logit_scale") else { throw missing("logit_scale") }
    json["logits_scaling"] = logits
    json["embedding_multiplier"] = multiplier("embedding_scale") ?? .double(1)
    json["residual_multiplier"] = multiplier("residual_scale") ?? .double(1)
    let headSize = try headSize()
    json["attention_multiplier"] = multiplier("attention.scale") ?? .double(1 / Double(headSize).squareRoot())
  }
}
