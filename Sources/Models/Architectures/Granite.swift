public import CheckpointIO

/// Granite 3: Llama with multipliers for embeddings, attention, residual branches and logits (Granite Team 2024).
public enum Granite: Architecture {
  public static let modelTypes = ["granite"]

  private struct Keys: Decodable {
    var embedding_multiplier, logits_scaling, residual_multiplier, attention_multiplier: Double?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var model = try config.decode(DecoderKeys.self).description(config)
    let own = try config.decode(Keys.self)
    model.embeddingScale = Float(own.embedding_multiplier ?? 1)
    model.logitScale = Float(1 / (own.logits_scaling ?? 1))
    model.eachBlock { _, block in
      block.residualScale = Float(own.residual_multiplier ?? 1)
      block.attention?.scale = Float(own.attention_multiplier ?? 1)
    }
    return model
  }
}
