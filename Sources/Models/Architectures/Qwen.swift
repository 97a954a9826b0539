public import CheckpointIO

/// Qwen2, Qwen2.5 and Qwen3, dense (Yang et al. 2024, 2025).
public enum Qwen: Architecture {
  public static let modelTypes = ["qwen2", "qwen3"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let isQwen3 = config.modelType == "qwen3"
    let types = keys.layer_types
    if let types, types.count != keys.num_hidden_layers {
      throw .unsupportedOption(
        option: "layer_types", value: "\(types.count) entries", reason: "\(keys.num_hidden_layers) layers need as many")
    }
    let window = keys.use_sliding_window == true ? keys.sliding_window ?? 4096 : nil
    return try keys.description(config, headSize: isQwen3 ? 128 : nil, keyValueHeads: 32) { layer in
      let slides = types.map { $0[layer] == "sliding_attention" } ?? (layer >= keys.max_window_layers ?? 28)
      return LayerVariant(
        window: slides ? window : nil, normalizesQueriesAndKeys: isQwen3, projectionBias: isQwen3 ? keys.attention_bias ?? false : true,
        outputBias: isQwen3 ? keys.attention_bias ?? false : false)
    }
  }
}
