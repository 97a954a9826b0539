public import CheckpointIO
public import StrictJSON

/// BLOOM: LayerNorm, on the embedding, too; no positions but the slopes of ALiBi; queries, keys and values of each head after each other in one
/// linear (Le Scao et al. 2022).
public enum BLOOM: Architecture {
  public static let modelTypes = ["bloom"]

  private struct Keys: Decodable {
    var vocab_size: Int
    var hidden_size, n_embed, n_layer, num_hidden_layers, n_head, num_attention_heads: Int?
    var layer_norm_epsilon: Float?
    var apply_residual_connection_post_layernorm, tie_word_embeddings: Bool?
  }

  /// The family has a word of its own for the number of layers.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["num_hidden_layers"] = nil
    json["n_layer"] = .integer(description.blocks.count)
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, heads) = (keys.n_embed ?? keys.hidden_size ?? 64, keys.n_head ?? keys.num_attention_heads ?? 8)
    let layers = keys.n_layer ?? keys.num_hidden_layers ?? 2
    let headSize = try config.headSize(hidden, heads: heads, layers: layers, vocabulary: keys.vocab_size)
    guard keys.apply_residual_connection_post_layernorm != true else {
      throw .unsupportedOption(
        option: "apply_residual_connection_post_layernorm", value: "true", reason: "norms on the residual stream are not computed here")
    }
    let norm = NormDescription(.layer, epsilon: keys.layer_norm_epsilon ?? 1e-5, hasBias: true)
    var attention = AttentionDescription(
      heads: heads, keyValueHeads: heads, headSize: headSize, rotary: nil, projections: .fused("self_attention.query_key_value", .groups),
      output: "self_attention.dense", hasProjectionBias: true, hasOutputBias: true)
    attention.slopes = AttentionDescription.slopes(heads: heads)
    let feedForward = FeedForwardDescription(
      size: 4 * hidden, activation: .geluTanh, hasBias: true,
      linears: FeedForwardLinears(.plain("mlp.dense_h_to_4h"), down: "mlp.dense_4h_to_h"))
    var model = ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "transformer.word_embeddings", finalNorm: "transformer.ln_f",
      head: keys.tie_word_embeddings ?? true ? nil : "lm_head", norm: norm, maximumPositions: config.json["seq_length"]?.integer,
      blocks: (0..<layers).map { layer in
        BlockDescription(
          prefix: "transformer.h.\(layer).", hiddenSize: hidden, norm: norm, attention: attention, feedForward: feedForward)
      })
    model.embeddingNorm = "transformer.word_embeddings_layernorm"
    return model
  }
}
