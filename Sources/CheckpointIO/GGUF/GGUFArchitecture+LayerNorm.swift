internal import StrictJSON

extension GGUFArchitecture {
  /// Families with LayerNorm and linears for queries, keys and values each.
  static let withLayerNorm: [GGUFArchitecture] = [starcoder2, stableLM, nemotron, commandR, cohere2]

  private static let starcoder2 = {
    var architecture = GGUFArchitecture(
      "starcoder2", modelTypes: ["starcoder2"],
      names: GGUFNames(modules: GGUFNames.attention + GGUFNames.norms + [("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")]))
    (architecture.epsilon, architecture.requiresBias) = (.layer, true)
    (architecture.hasOutputBias, architecture.hasNetworkBias) = (true, true)
    architecture.activation = "gelu_pytorch_tanh"
    architecture.spelling = ["layer_norm_eps": "norm_epsilon", "attention_bias": "use_bias", "mlp_bias": ""]
    architecture.adapt = { _, json in json["sliding_window"] = .null }
    return architecture
  }()

  /// Attention and feed-forward layer stand side by side where the second has no norm.
  private static let stableLM = {
    var architecture = GGUFArchitecture("stablelm", modelTypes: ["stablelm"], names: .llama)
    (architecture.epsilon, architecture.head, architecture.sharesBias) = (.layer, .required, false)
    architecture.keys = [.rotatedSize, .parallelResidual]
    architecture.spelling = ["attention_bias": "use_qkv_bias", "mlp_bias": ""]
    architecture.adapt = { reading, json in
      if json["partial_rotary_factor"] == nil { json["partial_rotary_factor"] = .double(1) }
      json["use_parallel_residual"] = .bool(!reading.has("blk.0.ffn_norm.weight"))
    }
    return architecture
  }()

  private static let nemotron = {
    var architecture = GGUFArchitecture(
      "nemotron", modelTypes: ["nemotron"], names: GGUFNames(modules: GGUFNames.attention + GGUFNames.norms + GGUFNames.ungatedNetwork))
    (architecture.epsilon, architecture.head, architecture.normOffset) = (.layer, .required, 1)
    architecture.keys = [.vocabularySize, .rotatedSize]
    (architecture.hasOutputBias, architecture.hasNetworkBias) = (true, true)
    architecture.activation = "relu2"
    architecture.spelling = ["layer_norm_eps": "norm_eps"]
    architecture.adapt = { _, json in if json["partial_rotary_factor"] == nil { json["partial_rotary_factor"] = .double(1) } }
    return architecture
  }()

  /// Command R's one norm stands before attention and the feed-forward layer alike.
  private static let cohereNames = GGUFNames(modules: GGUFNames.attention + [("input_layernorm", "attn_norm")] + GGUFNames.network)

  private static let commandR = {
    var architecture = GGUFArchitecture("command-r", modelTypes: ["cohere"], names: cohereNames)
    (architecture.epsilon, architecture.head) = (.layer, .absent)
    architecture.keys = [.logitScale]
    architecture.adapt = { reading, json in reading.setLogitScale(in: &json) }
    return architecture
  }()

  private static let cohere2 = {
    var architecture = GGUFArchitecture("cohere2", modelTypes: ["cohere2"], names: cohereNames)
    (architecture.epsilon, architecture.head) = (.layer, .absent)
    architecture.keys = [.vocabularySize, .rotatedSize, .logitScale]
    architecture.windows = GGUFWindows(period: 4)
    architecture.adapt = { reading, json in reading.setLogitScale(in: &json) }
    return architecture
  }()
}

extension GGUFReading {
  /// A scale of 0 is none to llama.cpp.
  fileprivate func setLogitScale(in json: inout JSON) {
    let scale = Float(number("logit_scale") ?? 0)
    json["logit_scale"] = .number("\(scale == 0 ? 1 : scale)")
  }
}
