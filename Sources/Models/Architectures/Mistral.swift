public import CheckpointIO
import StrictJSON

/// Mistral: Llama with a sliding window on every layer; Ministral, with windows by a list; the language model of Mistral Small 3
/// (Jiang et al. 2023; Mistral AI 2024, 2025).
public enum Mistral: Architecture {
  public static let modelTypes = ["mistral", "ministral", "mistral3"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let config = config.ofText
    if let type = config.json["model_type"]?.string, !["mistral", "ministral", "mistral3"].contains(type) {
      throw .unsupportedOption(option: "text_config.model_type", value: type, reason: "mistral and ministral are known")
    }
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 8))
    // A configuration that does not mention the window has one.
    let window = config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
    let slides = try keys.slides { _ in true }
    model.eachBlock { layer, block in
      block.attention?.window = slides[layer] ? window : nil
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
    }
    return model
  }
}
