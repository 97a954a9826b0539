public import CheckpointIO

/// OPT: LayerNorm, learned positions that begin at row 2, ReLU (Zhang et al. 2022). The 350M model, whose norms stand behind the residual
/// addition and whose embedding is projected, is refused.
public enum OPT: Architecture {
  public static let modelTypes = ["opt"]

  private struct Keys: Decodable {
    var vocab_size, hidden_size, num_hidden_layers, num_attention_heads: Int
    var ffn_dim, max_position_embeddings, word_embed_proj_dim: Int?
    var activation_function: String?
    var tie_word_embeddings, enable_bias, do_layer_norm_before, _remove_final_layer_norm, layer_norm_elementwise_affine: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, heads) = (keys.hidden_size, keys.num_attention_heads)
    let headSize = try config.headSize(hidden, heads: heads, layers: keys.num_hidden_layers, vocabulary: keys.vocab_size)
    if let width = keys.word_embed_proj_dim, width != hidden {
      throw .unsupportedOption(option: "word_embed_proj_dim", value: "\(width)", reason: "projected embeddings are not computed here")
    }
    guard keys.do_layer_norm_before ?? true, keys._remove_final_layer_norm != true, keys.layer_norm_elementwise_affine ?? true else {
      throw .unsupportedOption(
        option: "do_layer_norm_before", value: "false",
        reason: "norms behind the residual addition, without weights, or missing at the end are not computed here")
    }
    let norm = NormDescription(.layer, epsilon: 1e-5, hasBias: true)
    let activation = try Activation(keys.activation_function ?? "relu", option: "activation_function")
    let bias = keys.enable_bias ?? true
    let positions = keys.max_position_embeddings ?? 2048
    var model = ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "model.decoder.embed_tokens",
      finalNorm: "model.decoder.final_layer_norm", head: keys.tie_word_embeddings ?? true ? nil : "lm_head", norm: norm,
      maximumPositions: positions,
      blocks: (0..<keys.num_hidden_layers).map { layer in
        BlockDescription(
          prefix: "model.decoder.layers.\(layer).", hiddenSize: hidden, norm: norm,
          norms: NormPlacement(beforeAttention: "self_attn_layer_norm", beforeFeedForward: "final_layer_norm"),
          attention: AttentionDescription(
            heads: heads, keyValueHeads: heads, headSize: headSize, rotary: nil, output: "self_attn.out_proj", hasProjectionBias: bias,
            hasOutputBias: bias),
          feedForward: FeedForwardDescription(
            size: keys.ffn_dim ?? 4 * hidden, activation: activation, hasBias: bias,
            linears: FeedForwardLinears(.plain("fc1"), down: "fc2")))
      })
    model.positions = .init(module: "model.decoder.embed_positions", count: positions, offset: 2)
    return model
  }
}
