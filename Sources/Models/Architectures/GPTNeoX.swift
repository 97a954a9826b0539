public import CheckpointIO

/// GPT-NeoX and Pythia: LayerNorm, partly rotated heads, attention and feed-forward layer side by side (Black et al. 2022; Biderman et al.
/// 2023).
public enum GPTNeoX: Architecture {
  public static let modelTypes = ["gpt_neox"]

  private struct Keys: Decodable {
    var vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: Int
    var max_position_embeddings: Int?
    var layer_norm_eps: Float?
    var hidden_act: String?
    var rotary_pct, rotary_emb_base: Double?
    var tie_word_embeddings, attention_bias, use_parallel_residual: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, heads) = (keys.hidden_size, keys.num_attention_heads)
    let headSize = try config.headSize(hidden, heads: heads, layers: keys.num_hidden_layers, vocabulary: keys.vocab_size)
    let norm = NormDescription(.layer, epsilon: keys.layer_norm_eps ?? 1e-5, hasBias: true)
    let rotary = try RotaryDescription(
      config, base: keys.rotary_emb_base ?? 1e4, fraction: keys.rotary_pct ?? 0.25, headSize: headSize)
    let activation = try Activation(keys.hidden_act ?? "gelu", option: "hidden_act")
    let bias = keys.attention_bias ?? true
    var model = ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "gpt_neox.embed_in", finalNorm: "gpt_neox.final_layer_norm",
      head: keys.tie_word_embeddings == true ? nil : "embed_out", norm: norm, maximumPositions: keys.max_position_embeddings,
      blocks: (0..<keys.num_hidden_layers).map { layer in
        BlockDescription(
          prefix: "gpt_neox.layers.\(layer).", hiddenSize: hidden, norm: norm,
          attention: AttentionDescription(
            heads: heads, keyValueHeads: heads, headSize: headSize, rotary: rotary,
            projections: .fused("attention.query_key_value", .groups), output: "attention.dense", hasProjectionBias: bias,
            hasOutputBias: bias),
          feedForward: FeedForwardDescription(
            size: keys.intermediate_size, activation: activation, hasBias: true,
            linears: FeedForwardLinears(.plain("mlp.dense_h_to_4h"), down: "mlp.dense_4h_to_h")),
          isParallel: keys.use_parallel_residual ?? true)
      })
    model.ownHead = "embed_out"
    return model
  }
}
