public import CheckpointIO

/// Qwen2, Qwen2.5 and Qwen3, dense; of their models that see images the language part (Yang et al. 2024, 2025; Bai et al. 2025).
public enum Qwen: Architecture {
  public static let modelTypes = [
    "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text",
  ]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let isQwen3 = config.modelType.hasPrefix("qwen3")
    let seesImages = config.modelType.contains("_vl")
    let config = config.ofText
    let keys = try config.decode(DecoderKeys.self)
    let defaults =
      seesImages
      ? DecoderDefaults(
        headSize: isQwen3 ? 128 : nil, keyValueHeads: isQwen3 ? 32 : 8, epsilon: isQwen3 ? 1e-6 : 1e-5, rotaryBase: isQwen3 ? 5e5 : 1e6)
      : DecoderDefaults(headSize: isQwen3 ? 128 : nil, keyValueHeads: 32)
    var model = try keys.description(config, defaults)
    let window = keys.use_sliding_window == true ? keys.sliding_window ?? 4096 : nil
    let slides = try keys.slides { $0 >= keys.max_window_layers ?? (seesImages ? 80 : 28) }
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
