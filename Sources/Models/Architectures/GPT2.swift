public import CheckpointIO

/// GPT-2: LayerNorm, learned positions, one linear for queries, keys and values, matrices stored as [inputs × outputs] (Radford et al. 2019).
public enum GPT2: Architecture {
  public static let modelTypes = ["gpt2"]

  private struct Keys: Decodable {
    var vocab_size: Int
    var n_embd, n_layer, n_head, n_positions, n_inner: Int?
    var hidden_size, num_hidden_layers, num_attention_heads, max_position_embeddings: Int?
    var layer_norm_epsilon: Float?
    var activation_function: String?
    var tie_word_embeddings, scale_attn_weights, scale_attn_by_inverse_layer_idx, add_cross_attention: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, layers) = (keys.n_embd ?? keys.hidden_size ?? 768, keys.n_layer ?? keys.num_hidden_layers ?? 12)
    let heads = keys.n_head ?? keys.num_attention_heads ?? 12
    let headSize = try config.headSize(hidden, heads: heads, layers: layers, vocabulary: keys.vocab_size)
    guard keys.add_cross_attention != true else {
      throw .unsupportedOption(option: "add_cross_attention", value: "true", reason: "there is no encoder here")
    }
    let norm = NormDescription(.layer, epsilon: keys.layer_norm_epsilon ?? 1e-5, hasBias: true)
    let activation = try Activation(keys.activation_function ?? "gelu_new", option: "activation_function")
    let positions = keys.n_positions ?? keys.max_position_embeddings ?? 1024
    var model = ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "transformer.wte", finalNorm: "transformer.ln_f",
      head: keys.tie_word_embeddings ?? true ? nil : "lm_head", norm: norm, maximumPositions: positions,
      blocks: (0..<layers).map { layer in
        var scale = keys.scale_attn_weights ?? true ? 1 / Float(headSize).squareRoot() : 1
        if keys.scale_attn_by_inverse_layer_idx == true { scale /= Float(layer + 1) }
        return BlockDescription(
          prefix: "transformer.h.\(layer).", hiddenSize: hidden, norm: norm,
          norms: NormPlacement(beforeAttention: "ln_1", beforeFeedForward: "ln_2"),
          attention: AttentionDescription(
            heads: heads, keyValueHeads: heads, headSize: headSize, rotary: nil, scale: scale, projections: .fused("attn.c_attn", .blocks),
            output: "attn.c_proj", hasProjectionBias: true, hasOutputBias: true),
          feedForward: FeedForwardDescription(
            size: keys.n_inner ?? 4 * hidden, activation: activation, hasBias: true,
            linears: FeedForwardLinears(.plain("mlp.c_fc"), down: "mlp.c_proj")),
          storesTransposed: true)
      })
    model.positions = .init(module: "transformer.wpe", count: positions)
    return model
  }
}

extension ModelConfig {
  /// Hidden size / heads, where all sizes make sense.
  func headSize(_ hidden: Int, heads: Int, layers: Int, vocabulary: Int) throws(CheckpointError) -> Int {
    guard hidden > 0, heads > 0, layers > 0, vocabulary > 0 else {
      throw .malformedConfiguration(path: path, reason: "sizes must be positive")
    }
    guard hidden % heads == 0 else {
      throw .unsupportedOption(option: "hidden_size", value: "\(hidden)", reason: "it does not divide by \(heads) heads")
    }
    return hidden / heads
  }
}
