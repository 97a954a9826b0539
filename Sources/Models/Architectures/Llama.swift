public import CheckpointIO
import StrictJSON

/// Llama and the families that share its shape (Touvron et al. 2023; Jiang et al. 2023).
public enum Llama: Architecture {
  public static let modelTypes = ["llama", "mistral"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let isMistral = config.modelType == "mistral"
    // A Mistral configuration that does not mention its window has one.
    let window = isMistral && config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
    return try keys.description(config, keyValueHeads: isMistral ? 8 : nil) { _ in
      LayerVariant(
        window: isMistral ? window : nil, projectionBias: isMistral ? false : keys.attention_bias ?? false,
        outputBias: isMistral ? false : keys.attention_bias ?? false)
    }
  }
}
