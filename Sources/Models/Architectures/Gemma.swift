public import CheckpointIO
import StrictJSON

/// Gemma 1, 2 and 3, text (Gemma Team 2024, 2025): norms whose weights lie around zero, scaled embeddings; from 2 on norms behind the layers
/// too and alternating windows; in 2 soft caps; in 3 normalised queries and keys and other frequencies under the windows.
public enum Gemma: Architecture {
  public static let modelTypes = ["gemma", "gemma2", "gemma3_text", "gemma3"]

  private struct Keys: Decodable {
    var query_pre_attn_scalar, attn_logit_softcapping, final_logit_softcapping, rope_local_base_freq: Double?
    var sliding_window_pattern: Int?
    var use_bidirectional_attention: Bool?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config
    if config.modelType == "gemma3", let text = config.json["text_config"] { config.json = text }
    let isFirst = config.modelType == "gemma"
    let isThird = config.modelType.hasPrefix("gemma3")
    // A legacy "gelu" means the tanh form.
    if isFirst, config.json["hidden_act"]?.string == "gelu" { config.json["hidden_act"] = .string("gelu_pytorch_tanh") }
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    guard own.use_bidirectional_attention != true else {
      throw .unsupportedOption(option: "use_bidirectional_attention", value: "true", reason: "attention is causal here")
    }
    let defaults = DecoderDefaults(
      headSize: 256, keyValueHeads: isFirst ? 16 : 4, isTied: true, rotaryBase: isThird ? 1e6 : 1e4, activation: "gelu_pytorch_tanh")
    var model = try keys.description(config, defaults)
    model.norm.offset = 1
    model.embeddingScale = Float(Double(model.hiddenSize).squareRoot())
    func cap(_ key: String, _ value: Double?, default defaultCap: Double?) -> Float? {
      (config.json[key] == nil ? defaultCap : value).map { Float($0) }
    }
    if !isFirst { model.logitCap = cap("final_logit_softcapping", own.final_logit_softcapping, default: isThird ? nil : 30) }
    let pattern = try config.positive(own.sliding_window_pattern ?? 6, "sliding_window_pattern")
    let slides = try keys.slides { isFirst ? false : isThird ? ($0 + 1) % pattern != 0 : $0 % 2 == 0 }
    var local: RotaryDescription?
    if isThird {
      if let parts = config.json["rope_parameters"], let part = parts["sliding_attention"], part.members != nil {
        var plain = config
        plain.json["rope_scaling"] = nil
        local = try RotaryDescription(
          plain, base: own.rope_local_base_freq ?? 1e4, headSize: keys.headSize(defaults), layerType: "sliding_attention")
      } else {
        local = RotaryDescription(base: own.rope_local_base_freq ?? 1e4)
      }
    }
    model.eachBlock { layer, block in
      block.norm.offset = 1
      guard !isFirst else { return }
      block.norms = NormPlacement(
        afterAttention: "post_attention_layernorm", beforeFeedForward: "pre_feedforward_layernorm",
        afterFeedForward: "post_feedforward_layernorm")
      block.attention?.scale = Float(1 / (own.query_pre_attn_scalar ?? 256).squareRoot())
      if slides[layer] {
        block.attention?.window = keys.sliding_window ?? 4096
        if let local { block.attention?.rotary = local }
      }
      if isThird {
        block.attention?.queryKeyNorm = .head
      } else {
        block.attention?.scoreCap = cap("attn_logit_softcapping", own.attn_logit_softcapping, default: 50)
      }
    }
    return model
  }
}
