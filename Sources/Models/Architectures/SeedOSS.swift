public import CheckpointIO
import StrictJSON

/// Seed-OSS: Llama with biases on queries, keys and values (ByteDance Seed 2025).
public enum SeedOSS: Architecture {
  public static let modelTypes = ["seed_oss"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(headSize: 128, keyValueHeads: 8))
    let hasOutputBias = config.json["attention_out_bias"]?.bool ?? false
    model.eachBlock { _, block in
      block.attention?.hasProjectionBias = keys.attention_bias ?? true
      block.attention?.hasOutputBias = hasOutputBias
    }
    return model
  }
}
