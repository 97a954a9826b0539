internal import StrictJSON

extension GGUFArchitecture {
  /// Families with LayerNorm whose queries, keys and values come from one linear.
  static let withFusedQueries: [GGUFArchitecture] = [gpt2, gptNeoX, falcon, falcon40B, bloom, mpt]

  /// Keys of Llama's configuration that the older families have not.
  private static let unspoken = ["num_key_value_heads": "", "head_dim": "", "attention_bias": "", "mlp_bias": ""]

  private static let gpt2 = {
    var architecture = GGUFArchitecture(
      "gpt2", modelTypes: ["gpt2"],
      names: GGUFNames(
        prefix: "transformer.h.",
        ends: [
          ("transformer.wte", "token_embd"), ("transformer.wpe", "position_embd"), ("transformer.ln_f", "output_norm"),
          ("lm_head", "output"),
        ],
        modules: [
          ("ln_1", "attn_norm"), ("attn.c_attn", "attn_qkv"), ("attn.c_proj", "attn_output"), ("ln_2", "ffn_norm"), ("mlp.c_fc", "ffn_up"),
          ("mlp.c_proj", "ffn_down"),
        ]))
    (architecture.epsilon, architecture.rotates, architecture.storesTransposed) = (.layer, false, true)
    (architecture.hasOutputBias, architecture.hasNetworkBias, architecture.requiresBias) = (true, true, true)
    architecture.activation = "gelu_new"
    architecture.spelling = unspoken.merging([
      "hidden_size": "n_embd", "intermediate_size": "n_inner", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
      "max_position_embeddings": "n_positions", "layer_norm_eps": "layer_norm_epsilon", "hidden_act": "activation_function",
    ]) { $1 }
    return architecture
  }()

  private static let gptNeoX = {
    var architecture = GGUFArchitecture(
      "gptneox", modelTypes: ["gpt_neox"],
      names: GGUFNames(
        prefix: "gpt_neox.layers.",
        ends: [("gpt_neox.embed_in", "token_embd"), ("gpt_neox.final_layer_norm", "output_norm"), ("embed_out", "output")],
        modules: GGUFNames.norms + [
          ("attention.query_key_value", "attn_qkv"), ("attention.dense", "attn_output"), ("mlp.dense_h_to_4h", "ffn_up"),
          ("mlp.dense_4h_to_h", "ffn_down"),
        ]))
    (architecture.epsilon, architecture.head, architecture.requiresBias) = (.layer, .required, true)
    architecture.rows = ["attn_qkv": .groups]
    architecture.keys = [.rotatedSize, .parallelResidual]
    (architecture.hasOutputBias, architecture.hasNetworkBias) = (true, true)
    (architecture.activation, architecture.approximatesGELU) = ("gelu", true)
    architecture.spelling = [
      "num_key_value_heads": "", "head_dim": "", "mlp_bias": "", "rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct",
    ]
    architecture.adapt = { reading, json throws(CheckpointError) in
      if json["partial_rotary_factor"] == nil { json["partial_rotary_factor"] = .double(1) }
      json["attention_bias"] = .bool(reading.has("blk.0.attn_qkv.bias"))
      guard let isParallel = reading.value("use_parallel_residual")?.bool else { throw reading.missing("use_parallel_residual") }
      json["use_parallel_residual"] = .bool(isParallel)
    }
    return architecture
  }()

  private static func falcon(mark: String?, norms: [(String, String)], _ adapt: @escaping @Sendable (inout JSON) -> Void)
    -> GGUFArchitecture
  {
    var architecture = GGUFArchitecture(
      "falcon", modelTypes: ["falcon"], mark: mark,
      names: GGUFNames(
        prefix: "transformer.h.",
        ends: [("transformer.word_embeddings", "token_embd"), ("transformer.ln_f", "output_norm"), ("lm_head", "output")],
        modules: norms + [
          ("self_attention.query_key_value", "attn_qkv"), ("self_attention.dense", "attn_output"), ("mlp.dense_h_to_4h", "ffn_up"),
          ("mlp.dense_4h_to_h", "ffn_down"),
        ]))
    architecture.epsilon = .layer
    architecture.rows = ["attn_qkv": .groups]
    (architecture.activation, architecture.approximatesGELU) = ("gelu", true)
    architecture.spelling = [
      "num_key_value_heads": "num_kv_heads", "head_dim": "", "mlp_bias": "", "layer_norm_eps": "layer_norm_epsilon",
      "hidden_act": "activation", "intermediate_size": "ffn_hidden_size", "attention_bias": "bias",
    ]
    architecture.adapt = { _, json in
      (json["alibi"], json["parallel_attn"]) = (.bool(false), .bool(true))
      adapt(&json)
    }
    return architecture
  }

  /// One norm before both layers: with one key-value head as the 7B model has it, with more as the 11B model.
  private static let falcon = falcon(mark: nil, norms: [("input_layernorm", "attn_norm")]) { json in
    let isMultiQuery = json["num_key_value_heads"]?.integer == 1
    (json["new_decoder_architecture"], json["multi_query"]) = (.bool(!isMultiQuery), .bool(isMultiQuery))
    if !isMultiQuery { json["num_ln_in_parallel_attn"] = .integer(1) }
  }

  /// The 40B and 180B models: a norm for each layer.
  private static let falcon40B = falcon(
    mark: "blk.0.attn_norm_2.weight", norms: [("ln_attn", "attn_norm_2"), ("ln_mlp", "attn_norm")]
  ) { json in
    json["new_decoder_architecture"] = .bool(true)
    json["num_ln_in_parallel_attn"] = .integer(2)
  }

  private static let bloom = {
    var architecture = GGUFArchitecture(
      "bloom", modelTypes: ["bloom"],
      names: GGUFNames(
        prefix: "transformer.h.",
        ends: [
          ("transformer.word_embeddings", "token_embd"), ("transformer.word_embeddings_layernorm", "token_embd_norm"),
          ("transformer.ln_f", "output_norm"), ("lm_head", "output"),
        ],
        modules: GGUFNames.norms + [
          ("self_attention.query_key_value", "attn_qkv"), ("self_attention.dense", "attn_output"), ("mlp.dense_h_to_4h", "ffn_up"),
          ("mlp.dense_4h_to_h", "ffn_down"),
        ]))
    (architecture.epsilon, architecture.rotates) = (.layer, false)
    (architecture.hasOutputBias, architecture.hasNetworkBias, architecture.requiresBias) = (true, true, true)
    architecture.rows = ["attn_qkv": .groups]
    architecture.spelling = unspoken.merging([
      "intermediate_size": "", "hidden_act": "", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
      "max_position_embeddings": "seq_length", "layer_norm_eps": "layer_norm_epsilon",
    ]) { $1 }
    return architecture
  }()

  private static let mpt = {
    var architecture = GGUFArchitecture(
      "mpt", modelTypes: ["mpt"],
      names: GGUFNames(
        prefix: "transformer.blocks.",
        ends: [("transformer.wte", "token_embd"), ("transformer.norm_f", "output_norm"), ("lm_head", "output")],
        modules: [
          ("norm_1", "attn_norm"), ("attn.Wqkv", "attn_qkv"), ("attn.out_proj", "attn_output"), ("norm_2", "ffn_norm"),
          ("ffn.up_proj", "ffn_up"), ("ffn.down_proj", "ffn_down"),
        ]))
    (architecture.epsilon, architecture.rotates, architecture.approximatesGELU) = (.layer, false, true)
    architecture.keys = [.alibi]
    architecture.spelling = unspoken.merging([
      "intermediate_size": "", "hidden_act": "", "hidden_size": "d_model", "num_hidden_layers": "n_layers",
      "num_attention_heads": "n_heads",
      "max_position_embeddings": "max_seq_len", "layer_norm_eps": "layer_norm_epsilon",
    ]) { $1 }
    architecture.adapt = { reading, json in
      let steepest = reading.number("attention.max_alibi_bias") ?? 0
      json["attn_config"] = .object([
        .init("alibi", .bool(steepest != 0)), .init("alibi_bias_max", Int(exactly: steepest).map { .integer($0) } ?? .double(steepest)),
        .init("clip_qkv", (reading.number("attention.clamp_kqv")).flatMap { $0 == 0 ? nil : .double($0) } ?? .null),
      ])
    }
    return architecture
  }()
}
