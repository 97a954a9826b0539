public import CheckpointIO

/// Qwen2, Qwen2.5 and Qwen3, dense (Yang et al. 2024, 2025).
public enum Qwen: Architecture {
  public static let modelTypes = ["qwen2", "qwen3"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let isQwen3 = config.modelType == "qwen3"
    var model = try keys.description(config, DecoderDefaults(headSize: isQwen3 ? 128 : nil, keyValueHeads: 32))
    let window = keys.use_sliding_window == true ? keys.sliding_window ?? 4096 : nil
    let slides = try keys.slides { $0 >= keys.max_window_layers ?? 28 }
    model.eachBlock { layer, block in
      block.attention?.window = slides[layer] ? window : nil
      if isQwen3 {
        block.attention?.queryKeyNorm = .head
      } else {
        block.attention?.hasProjectionBias = true
        block.attention?.hasOutputBias = false
      }
    }
    return model
  }
}
