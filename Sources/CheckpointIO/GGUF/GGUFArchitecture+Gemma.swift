internal import StrictJSON

extension GGUFArchitecture {
  /// Gemma 1, 2 and 3: norms whose weights lie around one in the file and around zero in Hugging Face's checkpoints.
  static let gemma: [GGUFArchitecture] = [gemma1, gemma2, gemma3]

  private static let gemma1 = {
    var architecture = GGUFArchitecture("gemma", modelTypes: ["gemma"], names: .llama)
    (architecture.normOffset, architecture.head, architecture.headsAreFree) = (1, .absent, true)
    architecture.activation = "gelu_pytorch_tanh"
    return architecture
  }()

  private static let normsAround = [
    ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "post_attention_norm"), ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
  ]

  private static let gemma2 = {
    var architecture = GGUFArchitecture(
      "gemma2", modelTypes: ["gemma2"], names: GGUFNames(modules: GGUFNames.attention + normsAround + GGUFNames.network))
    (architecture.normOffset, architecture.head, architecture.headsAreFree) = (1, .absent, true)
    architecture.activation = "gelu_pytorch_tanh"
    architecture.keys = [.attentionCap, .logitCap]
    architecture.windows = GGUFWindows(period: 2, width: 4096)
    architecture.adapt = { reading, json throws(CheckpointError) in
      json["hidden_activation"] = .string("gelu_pytorch_tanh")
      json["query_pre_attn_scalar"] = .integer(try reading.scoreDivisor(ofLargest: 46))
      // llama.cpp's own where the file does not say.
      json["attn_logit_softcapping"] = .double(reading.number("attn_logit_softcapping") ?? 50)
      json["final_logit_softcapping"] = .double(reading.number("final_logit_softcapping") ?? 30)
    }
    return architecture
  }()

  private static let gemma3 = {
    var architecture = GGUFArchitecture(
      "gemma3", modelTypes: ["gemma3_text", "gemma3"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.queryKeyNorms + normsAround + GGUFNames.network))
    (architecture.normOffset, architecture.headsAreFree, architecture.activation) = (1, true, "gelu_pytorch_tanh")
    architecture.keys = [.logitCap, .localBase]
    architecture.windows = GGUFWindows(period: 6, isOptional: true)
    architecture.adapt = { reading, json throws(CheckpointError) in
      json["hidden_activation"] = .string("gelu_pytorch_tanh")
      json["query_pre_attn_scalar"] = .integer(try reading.scoreDivisor(ofLargest: 62))
      json["rope_local_base_freq"] = .double(reading.number("rope.freq_base_swa") ?? 10_000)
      let cap = reading.number("final_logit_softcapping") ?? 0
      json["final_logit_softcapping"] = cap == 0 ? .null : .double(cap)
      if json["layer_types"] == nil {
        json["layer_types"] = .array(Array(repeating: .string("full_attention"), count: try reading.size("block_count")))
      }
    }
    return architecture
  }()
}

extension GGUFReading {
  /// What scores are divided by the root of. llama.cpp knows the largest model by its number of layers, and takes the size of heads elsewhere.
  fileprivate func scoreDivisor(ofLargest layers: Int) throws(CheckpointError) -> Int {
    try size("block_count") == layers ? try size("embedding_length") / size("attention.head_count") : try headSize()
  }
}
