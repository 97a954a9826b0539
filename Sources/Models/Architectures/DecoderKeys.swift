import CheckpointIO
import StrictJSON

/// What may differ between the layers, or the families, of Llama-like models.
struct LayerVariant {
  var window: Int?
  var normalizesQueriesAndKeys = false
  var projectionBias = false
  var outputBias = false
}

/// The keys of `config.json` that Llama-like families read, spelled as the file spells them.
struct DecoderKeys: Decodable {
  var vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: Int
  var num_key_value_heads, head_dim, sliding_window, max_window_layers, max_position_embeddings: Int?
  var rms_norm_eps: Float?
  var hidden_act: String?
  var tie_word_embeddings, attention_bias, mlp_bias, use_sliding_window: Bool?
  var layer_types: [String]?

  /// - Parameters:
  ///   - headSize: the family's default where it is not hidden size / heads.
  ///   - keyValueHeads: the family's default where the key is absent and it is not the number of heads.
  func description(
    _ config: ModelConfig, headSize familyHeadSize: Int? = nil, keyValueHeads familyKeyValueHeads: Int? = nil,
    layer: (Int) -> LayerVariant
  ) throws(CheckpointError) -> ModelDescription {
    let keyValueHeads =
      num_key_value_heads ?? (config.json["num_key_value_heads"] == nil ? familyKeyValueHeads : nil) ?? num_attention_heads
    guard vocab_size > 0, hidden_size > 0, intermediate_size > 0, num_hidden_layers > 0, num_attention_heads > 0, keyValueHeads > 0 else {
      throw .malformedConfiguration(path: config.path, reason: "sizes must be positive")
    }
    guard num_attention_heads % keyValueHeads == 0 else {
      throw .unsupportedOption(
        option: "num_key_value_heads", value: "\(keyValueHeads)", reason: "it does not divide the \(num_attention_heads) attention heads")
    }
    guard let headSize = head_dim ?? familyHeadSize ?? (hidden_size % num_attention_heads == 0 ? hidden_size / num_attention_heads : nil)
    else {
      throw .unsupportedOption(
        option: "hidden_size", value: "\(hidden_size)", reason: "it does not divide by \(num_attention_heads) heads and head_dim is absent")
    }
    guard headSize > 0, headSize % 2 == 0 else {
      throw .unsupportedOption(option: "head_dim", value: "\(headSize)", reason: "rotary embedding needs an even size")
    }
    let activation: Activation
    switch hidden_act ?? "silu" {
    case "silu", "swish": activation = .silu
    case "gelu_pytorch_tanh", "gelu_new", "gelu_fast": activation = .geluTanh
    case let other: throw .unsupportedOption(option: "hidden_act", value: other, reason: "silu and the tanh forms of gelu are known")
    }
    let rotary = try RotaryDescription(config)
    let epsilon = rms_norm_eps ?? 1e-6
    return ModelDescription(
      vocabularySize: vocab_size, hiddenSize: hidden_size, head: tie_word_embeddings == true ? nil : "lm_head", normEpsilon: epsilon,
      maximumPositions: max_position_embeddings,
      blocks: (0..<num_hidden_layers).map { index in
        let variant = layer(index)
        let attention = AttentionDescription(
          heads: num_attention_heads, keyValueHeads: keyValueHeads, headSize: headSize, rotary: rotary, window: variant.window,
          normalizesQueriesAndKeys: variant.normalizesQueriesAndKeys, hasProjectionBias: variant.projectionBias,
          hasOutputBias: variant.outputBias)
        return BlockDescription(
          prefix: "model.layers.\(index).", hiddenSize: hidden_size, normEpsilon: epsilon, attention: attention,
          feedForward: FeedForwardDescription(size: intermediate_size, activation: activation, hasBias: mlp_bias ?? false))
      })
  }
}

extension RotaryDescription {
  /// Reads both spellings: top-level `rope_theta` with `rope_scaling`, and the newer `rope_parameters`.
  init(_ config: ModelConfig) throws(CheckpointError) {
    let json = config.json
    let scaling = json["rope_scaling"].flatMap { $0.members?.isEmpty == false ? $0 : nil }
    let parameters = scaling ?? json["rope_parameters"].flatMap { $0.isNull ? nil : $0 } ?? .object([])
    let base = parameters["rope_theta"]?.double ?? json["rope_theta"]?.double ?? 10_000
    let type = parameters["rope_type"]?.string ?? parameters["type"]?.string ?? "default"
    func required(_ key: String) throws(CheckpointError) -> Double {
      guard let value = parameters[key]?.double, value > 0 else {
        throw .unsupportedOption(option: "rope_scaling", value: type, reason: "it needs a positive \"\(key)\"")
      }
      return value
    }
    if let partial = parameters["partial_rotary_factor"]?.double ?? json["partial_rotary_factor"]?.double, partial != 1 {
      throw .unsupportedOption(option: "partial_rotary_factor", value: "\(partial)", reason: "only whole heads are rotated so far")
    }
    switch type {
    case "default": self.init(base: base)
    case "linear": self.init(base: base, scaling: .linear(factor: try required("factor")))
    case "llama3":
      let original =
        json["original_max_position_embeddings"]?.double ?? parameters["original_max_position_embeddings"]?.double
        ?? json["max_position_embeddings"]?.double
      guard let original else {
        throw .unsupportedOption(option: "rope_scaling", value: type, reason: "it needs \"original_max_position_embeddings\"")
      }
      self.init(
        base: base,
        scaling: .llama3(
          factor: try required("factor"), low: try required("low_freq_factor"), high: try required("high_freq_factor"),
          originalPositions: original))
    default:
      throw .unsupportedOption(option: "rope_scaling", value: type, reason: "default, linear and llama3 are known")
    }
  }
}
