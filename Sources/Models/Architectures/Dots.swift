public import CheckpointIO
public import StrictJSON

/// dots.llm1: mixtures of experts scored by the sigmoid, with normalised queries and keys (rednote-hilab 2025).
public enum Dots: Architecture {
  public static let modelTypes = ["dots1"]

  public static func respell(_ json: inout JSON, for description: ModelDescription) { RoutedExperts.respell(&json, for: description) }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 32))
    let window = config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
    let slides = try keys.slides { window != nil && $0 >= keys.max_window_layers ?? 62 }
    model.eachBlock { layer, block in
      block.attention?.window = slides[layer] ? window : nil
      block.attention?.queryKeyNorm = .head
    }
    try config.decode(RoutedExperts.self).apply(
      to: &model, .init(experts: 128, perToken: 6, size: 1408, shared: 2, normalizes: false),
      correction: "mlp.gate.e_score_correction_bias")
    return model
  }
}
