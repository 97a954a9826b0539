public import CheckpointIO
public import StrictJSON

/// MPT: LayerNorm without biases, no positions but the slopes of ALiBi, queries, keys and values from one linear (MosaicML 2023). What transformers
/// reads and does not compute is refused.
public enum MPT: Architecture {
  public static let modelTypes = ["mpt"]

  private struct Keys: Decodable {
    var vocab_size: Int
    var d_model, hidden_size, n_layers, num_hidden_layers, n_heads, num_attention_heads, max_seq_len: Int?
    var layer_norm_epsilon: Float?
    var tie_word_embeddings: Bool?
  }

  /// The family has a word of its own for the number of layers.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["num_hidden_layers"] = nil
    json["n_layers"] = .integer(description.blocks.count)
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, heads) = (keys.d_model ?? keys.hidden_size ?? 2048, keys.n_heads ?? keys.num_attention_heads ?? 16)
    let layers = keys.n_layers ?? keys.num_hidden_layers ?? 24
    let headSize = try config.headSize(hidden, heads: heads, layers: layers, vocabulary: keys.vocab_size)
    try refuseOthers(config)
    let norm = NormDescription(.layer, epsilon: keys.layer_norm_epsilon ?? 1e-5)
    var attention = AttentionDescription(
      heads: heads, keyValueHeads: heads, headSize: headSize, rotary: nil,
      scale: (config.json["attn_config"]?["softmax_scale"]?.double).map { Float($0) }, projections: .fused("attn.Wqkv", .blocks),
      output: "attn.out_proj")
    attention.slopes = AttentionDescription.slopes(heads: heads)
    let feedForward = FeedForwardDescription(
      size: 4 * hidden, activation: .gelu, linears: FeedForwardLinears(.plain("ffn.up_proj"), down: "ffn.down_proj"))
    return ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "transformer.wte", finalNorm: "transformer.norm_f",
      head: keys.tie_word_embeddings ?? true ? nil : "lm_head", norm: norm, maximumPositions: keys.max_seq_len ?? 2048,
      blocks: (0..<layers).map { layer in
        BlockDescription(
          prefix: "transformer.blocks.\(layer).", hiddenSize: hidden, norm: norm,
          norms: NormPlacement(beforeAttention: "norm_1", beforeFeedForward: "norm_2"), attention: attention, feedForward: feedForward)
      })
  }

  /// - Throws: `CheckpointError.unsupportedOption` for what asks for another model than the one that transformers computes.
  private static func refuseOthers(_ config: ModelConfig) throws(CheckpointError) {
    let computed: [(key: String, value: JSON)] = [
      ("no_bias", .bool(true)), ("expansion_ratio", .integer(4)), ("logit_scale", .null), ("attn_config.clip_qkv", .null),
      ("attn_config.alibi", .bool(true)), ("attn_config.alibi_bias_max", .integer(8)), ("attn_config.qk_ln", .bool(false)),
      ("attn_config.prefix_lm", .bool(false)), ("attn_config.attn_type", .string("multihead_attention")),
    ]
    for (key, value) in computed {
      let found = key.split(separator: ".").reduce(Optional(config.json)) { $0?[String($1)] }
      guard let found, found != value else { continue }
      throw .unsupportedOption(option: key, value: found.text(), reason: "\(value.text()) is computed")
    }
  }
}
