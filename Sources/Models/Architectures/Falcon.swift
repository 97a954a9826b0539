public import CheckpointIO

/// Falcon 7B, 40B and their kin: LayerNorm, attention beside the feed-forward layer, few key-value heads, all from one linear (Almazrouei et
/// al. 2023). Models with ALiBi are refused.
public enum Falcon: Architecture {
  public static let modelTypes = ["falcon"]

  private struct Keys: Decodable {
    var vocab_size, hidden_size, num_hidden_layers, num_attention_heads: Int
    var num_kv_heads, num_ln_in_parallel_attn, ffn_hidden_size, max_position_embeddings: Int?
    var layer_norm_epsilon: Float?
    var activation: String?
    var alibi, new_decoder_architecture, multi_query, parallel_attn, bias, tie_word_embeddings: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, heads) = (keys.hidden_size, keys.num_attention_heads)
    let headSize = try config.headSize(hidden, heads: heads, layers: keys.num_hidden_layers, vocabulary: keys.vocab_size)
    guard keys.alibi != true else { throw .unsupportedOption(option: "alibi", value: "true", reason: "ALiBi is not computed here") }
    let isNew = keys.new_decoder_architecture ?? false
    let isMultiQuery = keys.multi_query ?? true
    let keyValueHeads = isNew ? keys.num_kv_heads ?? heads : isMultiQuery ? 1 : heads
    guard keyValueHeads > 0, heads % keyValueHeads == 0 else {
      throw .unsupportedOption(option: "num_kv_heads", value: "\(keyValueHeads)", reason: "it does not divide the \(heads) heads")
    }
    let isParallel = isNew || keys.parallel_attn ?? true
    let norms: NormPlacement
    if isNew, keys.num_ln_in_parallel_attn ?? 2 == 2 {
      norms = NormPlacement(beforeAttention: "ln_attn", beforeFeedForward: "ln_mlp")
    } else {
      norms = NormPlacement(beforeFeedForward: isParallel ? "input_layernorm" : "post_attention_layernorm")
    }
    let norm = NormDescription(.layer, epsilon: keys.layer_norm_epsilon ?? 1e-5, hasBias: true)
    let rotary = try RotaryDescription(config, headSize: headSize)
    let activation = try Activation(keys.activation ?? "gelu", option: "activation")
    let bias = keys.bias ?? false
    return ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "transformer.word_embeddings", finalNorm: "transformer.ln_f",
      head: keys.tie_word_embeddings ?? true ? nil : "lm_head", norm: norm, maximumPositions: keys.max_position_embeddings ?? 2048,
      blocks: (0..<keys.num_hidden_layers).map { layer in
        BlockDescription(
          prefix: "transformer.h.\(layer).", hiddenSize: hidden, norm: norm, norms: norms,
          attention: AttentionDescription(
            heads: heads, keyValueHeads: keyValueHeads, headSize: headSize, rotary: rotary,
            projections: .fused("self_attention.query_key_value", isNew || !isMultiQuery ? .groups : .blocks),
            output: "self_attention.dense", hasProjectionBias: bias, hasOutputBias: bias),
          feedForward: FeedForwardDescription(
            size: keys.ffn_hidden_size ?? 4 * hidden, activation: activation, hasBias: bias,
            linears: FeedForwardLinears(.plain("mlp.dense_h_to_4h"), down: "mlp.dense_4h_to_h")),
          isParallel: isParallel)
      })
  }
}
