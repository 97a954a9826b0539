public import CheckpointIO

/// BERT and the sentence encoders made of it, such as MiniLM: attention in both directions, norms on the sums, learned positions, and hidden
/// states for output (Devlin et al. 2018; Reimers and Gurevych 2019; Wang et al. 2020). Poolers and heads are carried along.
public enum BERT: Architecture {
  public static let modelTypes = ["bert"]

  private struct Keys: Decodable {
    var vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: Int
    var max_position_embeddings, type_vocab_size: Int?
    var layer_norm_eps: Float?
    var hidden_act, position_embedding_type: String?
    var is_decoder, add_cross_attention: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(Keys.self)
    let (hidden, heads, layers) = (keys.hidden_size, keys.num_attention_heads, keys.num_hidden_layers)
    let headSize = try config.headSize(hidden, heads: heads, layers: layers, vocabulary: keys.vocab_size)
    let (positions, types) = (keys.max_position_embeddings ?? 512, keys.type_vocab_size ?? 2)
    guard keys.intermediate_size > 0, positions > 0, types > 0 else {
      throw .malformedConfiguration(path: config.path, reason: "sizes must be positive")
    }
    for (option, isOn) in [("is_decoder", keys.is_decoder), ("add_cross_attention", keys.add_cross_attention)] where isOn == true {
      throw .unsupportedOption(option: option, value: "true", reason: "BERT is an encoder here")
    }
    if let type = keys.position_embedding_type, type != "absolute" {
      throw .unsupportedOption(option: "position_embedding_type", value: type, reason: "only absolute positions are computed here")
    }
    let norm = NormDescription(.layer, epsilon: keys.layer_norm_eps ?? 1e-12, hasBias: true)
    let attention = AttentionDescription(
      heads: heads, keyValueHeads: heads, headSize: headSize, rotary: nil, isCausal: false,
      projections: .separate(query: "attention.self.query", key: "attention.self.key", value: "attention.self.value"),
      output: "attention.output.dense", hasProjectionBias: true, hasOutputBias: true)
    let feedForward = FeedForwardDescription(
      size: keys.intermediate_size, activation: try Activation(keys.hidden_act ?? "gelu", option: "hidden_act"), hasBias: true,
      linears: FeedForwardLinears(.plain("intermediate.dense"), down: "output.dense"))
    let norms = NormPlacement(
      beforeAttention: nil, beforeFeedForward: nil, afterAttentionSum: "attention.output.LayerNorm",
      afterFeedForwardSum: "output.LayerNorm")
    var model = ModelDescription(
      vocabularySize: keys.vocab_size, hiddenSize: hidden, embedding: "embeddings.word_embeddings", finalNorm: nil, head: nil, norm: norm,
      maximumPositions: positions,
      blocks: (0..<layers).map { layer in
        BlockDescription(
          prefix: "encoder.layer.\(layer).", hiddenSize: hidden, norm: norm, norms: norms, attention: attention, feedForward: feedForward)
      })
    model.hasLogits = false
    model.embeddingNorm = "embeddings.LayerNorm"
    model.positions = .init(module: "embeddings.position_embeddings", count: positions)
    model.tokenTypes = .init(module: "embeddings.token_type_embeddings", count: types)
    model.wrappingPrefix = "bert."
    return model
  }
}
