public import CheckpointIO
import StrictJSON

/// What a family takes where its configuration is silent.
public struct DecoderDefaults: Sendable {
  /// `nil` for hidden size / heads.
  public var headSize: Int?
  /// `nil` for as many as heads.
  public var keyValueHeads: Int?
  public var epsilon: Float = 1e-6
  public var isTied = false
  public var rotaryBase = 10_000.0
  public var activation = "silu"

  public init(
    headSize: Int? = nil, keyValueHeads: Int? = nil, epsilon: Float = 1e-6, isTied: Bool = false, rotaryBase: Double = 10_000,
    activation: String = "silu"
  ) {
    self.headSize = headSize
    self.keyValueHeads = keyValueHeads
    self.epsilon = epsilon
    self.isTied = isTied
    self.rotaryBase = rotaryBase
    self.activation = activation
  }
}

/// The keys of `config.json` that Llama-like families read, spelled as the file spells them.
public struct DecoderKeys: Decodable {
  var vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: Int
  var num_key_value_heads, head_dim, sliding_window, max_window_layers, max_position_embeddings: Int?
  var rms_norm_eps: Float?
  var hidden_act, hidden_activation: String?
  var tie_word_embeddings, attention_bias, mlp_bias, use_sliding_window: Bool?
  var layer_types: [String]?

  /// A model of Llama's shape; families change what is theirs.
  ///
  /// - Throws: `CheckpointError` for sizes that make no model.
  public func description(_ config: ModelConfig, _ defaults: DecoderDefaults = DecoderDefaults()) throws(CheckpointError)
    -> ModelDescription
  {
    let keyValueHeads =
      num_key_value_heads ?? (config.json["num_key_value_heads"] == nil ? defaults.keyValueHeads : nil) ?? num_attention_heads
    guard vocab_size > 0, hidden_size > 0, intermediate_size > 0, num_hidden_layers > 0, num_attention_heads > 0, keyValueHeads > 0 else {
      throw .malformedConfiguration(path: config.path, reason: "sizes must be positive")
    }
    guard num_attention_heads % keyValueHeads == 0 else {
      throw .unsupportedOption(
        option: "num_key_value_heads", value: "\(keyValueHeads)", reason: "it does not divide the \(num_attention_heads) attention heads")
    }
    let headSize = try headSize(defaults)
    guard headSize > 0, headSize % 2 == 0 else {
      throw .unsupportedOption(option: "head_dim", value: "\(headSize)", reason: "rotary embedding needs an even size")
    }
    let activation = try Activation(hidden_activation ?? hidden_act ?? defaults.activation, option: "hidden_act")
    let attention = AttentionDescription(
      heads: num_attention_heads, keyValueHeads: keyValueHeads, headSize: headSize,
      rotary: try RotaryDescription(config, base: defaults.rotaryBase, headSize: headSize), hasProjectionBias: attention_bias ?? false,
      hasOutputBias: attention_bias ?? false)
    let feedForward = FeedForwardDescription(size: intermediate_size, activation: activation, hasBias: mlp_bias ?? false)
    let norm = NormDescription(epsilon: rms_norm_eps ?? defaults.epsilon)
    return ModelDescription(
      vocabularySize: vocab_size, hiddenSize: hidden_size, head: tie_word_embeddings ?? defaults.isTied ? nil : "lm_head", norm: norm,
      maximumPositions: max_position_embeddings,
      blocks: (0..<num_hidden_layers).map { index in
        BlockDescription(
          prefix: "model.layers.\(index).", hiddenSize: hidden_size, norm: norm, attention: attention, feedForward: feedForward)
      })
  }

  /// Numbers of a query head; hidden size / heads, where neither the configuration nor the family says.
  func headSize(_ defaults: DecoderDefaults = DecoderDefaults()) throws(CheckpointError) -> Int {
    if let size = head_dim ?? defaults.headSize { return size }
    guard num_attention_heads > 0, hidden_size % num_attention_heads == 0 else {
      throw .unsupportedOption(
        option: "hidden_size", value: "\(hidden_size)", reason: "it does not divide by \(num_attention_heads) heads and head_dim is absent")
    }
    return hidden_size / num_attention_heads
  }

  /// Whether each layer's attention is windowed, by `layer_types` or else by the family's rule.
  func slides(_ rule: (Int) -> Bool) throws(CheckpointError) -> [Bool] {
    guard let types = layer_types else { return (0..<num_hidden_layers).map(rule) }
    guard types.count == num_hidden_layers else {
      throw .unsupportedOption(
        option: "layer_types", value: "\(types.count) entries", reason: "\(num_hidden_layers) layers need as many")
    }
    for type in types where type != "full_attention" && type != "sliding_attention" {
      throw .unsupportedOption(option: "layer_types", value: type, reason: "full_attention and sliding_attention are known")
    }
    return types.map { $0 == "sliding_attention" }
  }
}

extension Activation {
  /// - Parameter option: the key that says so.
  init(_ name: String, option: String) throws(CheckpointError) {
    switch name {
    case "silu", "swish": self = .silu
    case "gelu_pytorch_tanh", "gelu_new", "gelu_fast": self = .geluTanh
    case "gelu": self = .gelu
    case "relu": self = .relu
    case "relu2": self = .reluSquared
    default: throw .unsupportedOption(option: option, value: name, reason: "silu, relu, relu2, gelu and its tanh forms are known")
    }
  }
}

extension ModelDescription {
  /// Changes every block.
  public mutating func eachBlock(_ change: (Int, inout BlockDescription) -> Void) {
    for index in blocks.indices { change(index, &blocks[index]) }
  }
}
