public import CheckpointIO
import StrictJSON

/// Command R and Command A: attention and feed-forward layer side by side behind one LayerNorm without bias, heads rotated by neighbouring pairs;
/// from the second generation on windows on three layers of four, and no positions on the fourth (Cohere 2024, 2025).
public enum Cohere: Architecture {
  public static let modelTypes = ["cohere", "cohere2"]

  private struct Keys: Decodable {
    var layer_norm_eps: Float?
    var logit_scale: Double?
    var use_qk_norm: Bool?
    var sliding_window_pattern: Int?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    guard own.use_qk_norm != true else {
      throw .unsupportedOption(option: "use_qk_norm", value: "true", reason: "a norm for every head is not computed here")
    }
    let isSecond = config.modelType == "cohere2"
    var model = try keys.description(config, DecoderDefaults(isTied: true, rotaryBase: isSecond ? 1e4 : 5e5))
    let norm = NormDescription(.layer, epsilon: own.layer_norm_eps ?? 1e-5)
    model.norm = norm
    model.logitScale = Float(own.logit_scale ?? 0.0625)
    let window = config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
    let step = try config.positive(own.sliding_window_pattern ?? 4, "sliding_window_pattern")
    let slides = try keys.slides { isSecond && ($0 + 1) % step != 0 }
    model.eachBlock { layer, block in
      block.norm = norm
      block.norms = NormPlacement(beforeFeedForward: "input_layernorm")
      block.isParallel = true
      block.attention?.rotary?.isInterleaved = true
      block.feedForward?.hasBias = false
      guard isSecond else { return }
      block.attention?.window = slides[layer] ? window : nil
      if !slides[layer] || window == nil { block.attention?.rotary = nil }
    }
    return model
  }
}
