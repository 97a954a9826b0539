internal import StrictJSON

extension GGUFNames {
  /// Experts that a layer's checkpoint has apart, and the file in three tensors.
  ///
  /// - Parameters:
  ///   - router: the module that scores them.
  ///   - prefix: what precedes an expert's number.
  ///   - linears: an expert's gate, what it gates, and its last linear.
  static func experts(router: String, prefix: String, linears: (gate: String, up: String, down: String)) -> [(String, String)] {
    [
      (router, "ffn_gate_inp"), ("\(prefix)*.\(linears.gate)", "ffn_gate_exps"), ("\(prefix)*.\(linears.up)", "ffn_up_exps"),
      ("\(prefix)*.\(linears.down)", "ffn_down_exps"),
    ]
  }

  static let mlpExperts = experts(router: "mlp.gate", prefix: "mlp.experts.", linears: ("gate_proj", "up_proj", "down_proj"))
}

extension GGUFArchitecture {
  /// Mixtures of experts.
  static let mixtures: [GGUFArchitecture] = [mixtral, graniteMixture, qwen2Mixture, qwen3Mixture, olmoe, gptOss]

  /// Mixtral is Llama to llama.cpp.
  private static let mixtral = rotatingNeighbours(
    "llama", modelTypes: ["mixtral"], mark: "blk.0.ffn_gate_inp.weight",
    names: GGUFNames(
      modules: GGUFNames.attention + GGUFNames.norms
        + GGUFNames.experts(router: "block_sparse_moe.gate", prefix: "block_sparse_moe.experts.", linears: ("w1", "w3", "w2")))
  ) {
    $0.keys = [.vocabularySize, .rotatedSize, .experts]
    ($0.readsRotaryFactors, $0.readsLongFactors) = (true, true)
    $0.adapt = { reading, json throws(CheckpointError) in
      try reading.setExperts(in: &json, count: "num_local_experts")
      json["sliding_window"] = .null
    }
  }

  private static let graniteMixture = rotatingNeighbours(
    "granitemoe", modelTypes: ["granitemoe"],
    names: GGUFNames(
      modules: GGUFNames.attention + GGUFNames.norms
        + GGUFNames.experts(router: "block_sparse_moe.router.layer", prefix: "block_sparse_moe.experts.", linears: ("w1", "w3", "w2")))
  ) {
    $0.keys = granite.union([.experts])
    $0.hasOutputBias = true
    ($0.readsRotaryFactors, $0.readsLongFactors) = (true, true)
    $0.adapt = { reading, json throws(CheckpointError) in
      try reading.setMultipliers(in: &json)
      try reading.setExperts(in: &json, count: "num_local_experts")
    }
  }

  private static let qwen2Mixture = {
    var architecture = GGUFArchitecture(
      "qwen2moe", modelTypes: ["qwen2_moe"],
      names: GGUFNames(
        modules: GGUFNames.attention + GGUFNames.norms + GGUFNames.mlpExperts + [
          ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"), ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
          ("mlp.shared_expert.down_proj", "ffn_down_shexp"), ("mlp.shared_expert_gate", GGUFArchitecture.sharedExpertGate),
        ]))
    architecture.keys = [.experts, .expertSize, .sharedExpertSize]
    (architecture.head, architecture.sharesBias) = (.required, false)
    architecture.adapt = { reading, json throws(CheckpointError) in
      try reading.setQwenExperts(in: &json)
      json["qkv_bias"] = .bool(reading.has("blk.0.attn_q.bias"))
      // Its graph does not divide the weights of the chosen experts by their sum.
      json["norm_topk_prob"] = .bool(false)
      let shared = try reading.optionalSize("expert_shared_feed_forward_length") ?? 0
      json["shared_expert_intermediate_size"] = .integer(shared > 0 ? shared : try reading.size("feed_forward_length"))
    }
    return architecture
  }()

  private static let qwen3Mixture = {
    var architecture = GGUFArchitecture(
      "qwen3moe", modelTypes: ["qwen3_moe"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.queryKeyNorms + GGUFNames.norms + GGUFNames.mlpExperts))
    architecture.keys = [.experts, .expertSize]
    architecture.headsAreFree = true
    architecture.adapt = { reading, json throws(CheckpointError) in
      try reading.setQwenExperts(in: &json)
      json["norm_topk_prob"] = .bool(true)
    }
    return architecture
  }()

  private static let olmoe = {
    var architecture = GGUFArchitecture(
      "olmoe", modelTypes: ["olmoe"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.queryKeyNorms + GGUFNames.norms + GGUFNames.mlpExperts))
    architecture.keys = [.experts]
    (architecture.head, architecture.groupsQueries) = (.required, false)
    architecture.adapt = { reading, json throws(CheckpointError) in
      try reading.setExperts(in: &json)
      json["norm_topk_prob"] = .bool(false)
    }
    return architecture
  }()
}

extension GGUFArchitecture {
  private static let gptOss = {
    var architecture = GGUFArchitecture(
      "gpt-oss", modelTypes: ["gpt_oss"],
      names: GGUFNames(
        modules: GGUFNames.attention + [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "post_attention_norm")]
          + GGUFNames.experts(router: "mlp.router", prefix: "mlp.experts.", linears: ("gate_proj", "up_proj", "down_proj")),
        tensors: [("self_attn.sinks", "attn_sinks.weight")]))
    architecture.keys = [.experts, .expertSize]
    (architecture.head, architecture.headsAreFree, architecture.requiresBias) = (.required, true, true)
    (architecture.hasOutputBias, architecture.hasNetworkBias, architecture.roundsYarn) = (true, true, true)
    architecture.windows = GGUFWindows(period: 2)
    architecture.adapt = { reading, json throws(CheckpointError) in
      try reading.setExperts(in: &json, count: "num_local_experts")
      json["intermediate_size"] = .integer(try reading.size("expert_feed_forward_length"))
      if json["rope_scaling"]?["rope_type"]?.string == "yarn" {
        json["rope_scaling"]?["truncate"] = .bool(false)
      } else if json["rope_scaling"] == nil {
        // Silence would mean YaRN.
        json["rope_scaling"] = .object([.init("rope_type", .string("default"))])
      }
    }
    return architecture
  }()
}

extension GGUFReading {
  /// All layers are mixtures in llama.cpp.
  fileprivate func setQwenExperts(in json: inout JSON) throws(CheckpointError) {
    try setExperts(in: &json)
    json["decoder_sparse_step"] = .integer(1)
    json["mlp_only_layers"] = .array([])
    let size = try optionalSize("expert_feed_forward_length") ?? 0
    json["moe_intermediate_size"] = .integer(
      size > 0 ? size : try self.size("feed_forward_length") / max(1, try self.size("expert_used_count")))
  }
}
