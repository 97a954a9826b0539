public import CheckpointIO

/// Llama 1 to 3.x and the models that share its shape, such as SmolLM 1 and 2 (Touvron et al. 2023; Grattafiori et al. 2024).
public enum Llama: Architecture {
  public static let modelTypes = ["llama"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    try config.decode(DecoderKeys.self).description(config)
  }
}
