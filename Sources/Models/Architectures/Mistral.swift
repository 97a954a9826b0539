public import CheckpointIO
import StrictJSON

/// Mistral: Llama with a sliding window on every layer (Jiang et al. 2023).
public enum Mistral: Architecture {
  public static let modelTypes = ["mistral"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 8))
    // A configuration that does not mention the window has one.
    let window = config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
    model.eachBlock { _, block in
      block.attention?.window = window
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
    }
    return model
  }
}
