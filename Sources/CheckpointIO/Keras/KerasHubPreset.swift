internal import StrictJSON
internal import Foundation

/// What a KerasHub preset's `config.json` says of a model: the class of its backbone and the arguments it is made with.
struct KerasHubPreset: Sendable {
  /// Backbones whose parts have a place here.
  enum Family: String, Sendable, CaseIterable {
    case llama = "LlamaBackbone"
    case llama3 = "Llama3Backbone"
    case mistral = "MistralBackbone"
    case qwen = "QwenBackbone"
    case gemma = "GemmaBackbone"

    /// Keras names layers after their classes.
    var block: String {
      switch self {
      case .llama, .llama3: "llama_transformer_decoder"
      case .mistral: "mistral_transformer_decoder"
      case .qwen: "qwen_transformer_decoder"
      case .gemma: "gemma_decoder_block"
      }
    }

    var norm: String {
      switch self {
      case .llama, .llama3: "llama_layer_norm"
      case .mistral: "mistral_layer_normalization"
      case .qwen: "qwen_layer_norm"
      case .gemma: "rms_normalization"
      }
    }
  }

  let family: Family
  let layers, heads, keyValueHeads: Int
  /// Whether norms also follow attention and feed-forward.
  let hasPostNorms: Bool
  private let arguments: JSON
  private let path: String

  /// - Returns: `nil` for a `config.json` that is not KerasHub's.
  /// - Throws: `CheckpointError` for a backbone that has no place here, or arguments that are missing.
  init?(contentsOf url: URL) throws(CheckpointError) {
    guard let text = try? Data(contentsOf: url), let json = try? JSON(parsing: text, allowsRepeatedKeys: true), json["model_type"] == nil,
      let name = json["class_name"]?.string, let arguments = json["config"]
    else { return nil }
    try self.init(class: name, arguments: arguments, path: url.path)
  }

  init(class name: String, arguments: JSON, path: String) throws(CheckpointError) {
    guard let family = Family(rawValue: name) else { throw .unsupportedModel(type: name, known: Family.allCases.map(\.rawValue)) }
    func size(_ key: String) throws(CheckpointError) -> Int {
      guard let value = arguments[key]?.integer, value > 0, value < 1 << 31 else {
        throw .malformedConfiguration(path: path, reason: "\"config.\(key)\" should be a positive number")
      }
      return value
    }
    (self.family, self.arguments, self.path) = (family, arguments, path)
    (layers, heads, keyValueHeads) = (try size("num_layers"), try size("num_query_heads"), try size("num_key_value_heads"))
    guard layers <= 10_000 else { throw .malformedConfiguration(path: path, reason: "\(layers) layers") }
    hasPostNorms = arguments["use_post_ffw_norm"]?.bool == true
    for key in ["vocabulary_size", "hidden_dim", "intermediate_dim"] { _ = try size(key) }
  }

  /// The same in the words of Hugging Face.
  ///
  /// - Parameter isTied: whether the head is the embedding.
  func config(isTied: Bool) throws(CheckpointError) -> ModelConfig {
    func integer(_ key: String) -> Int { arguments[key]?.integer ?? 0 }
    let hidden = integer("hidden_dim")
    let isGemma = family == .gemma
    let epsilon = arguments["layer_norm_epsilon"]?.double ?? 1e-6
    var members: [JSON.Member] = [
      .init("model_type", .string(modelType)), .init("vocab_size", .integer(integer("vocabulary_size"))),
      .init("hidden_size", .integer(hidden)),
      // Gemma's counts gate and up together.
      .init("intermediate_size", .integer(isGemma ? integer("intermediate_dim") / 2 : integer("intermediate_dim"))),
      .init("num_hidden_layers", .integer(layers)), .init("num_attention_heads", .integer(heads)),
      .init("num_key_value_heads", .integer(keyValueHeads)),
      .init("head_dim", .integer(arguments["head_dim"]?.integer ?? hidden / heads)), .init("rms_norm_eps", .double(epsilon)),
      .init(isGemma ? "hidden_activation" : "hidden_act", .string(isGemma ? "gelu_pytorch_tanh" : "silu")),
      .init("rope_theta", .double(arguments["rope_max_wavelength"]?.double ?? 10_000)), .init("tie_word_embeddings", .bool(isTied)),
    ]
    if let scaling = try ropeScaling() { members.append(.init("rope_scaling", scaling)) }
    if family == .mistral { members.append(.init("sliding_window", arguments["sliding_window"] ?? .null)) }
    if hasPostNorms {
      members += [
        .init("attn_logit_softcapping", arguments["attention_logit_soft_cap"] ?? .null),
        .init("final_logit_softcapping", arguments["final_logit_soft_cap"] ?? .null),
        .init("sliding_window", arguments["sliding_window_size"] ?? .null),
        .init(
          "query_pre_attn_scalar", .integer(arguments["query_head_dim_normalize"]?.bool == false ? hidden / heads : integer("head_dim"))),
      ]
    }
    if let dtype = arguments["dtype"]?.string ?? arguments["dtype"]?["config"]?["name"]?.string {
      members.append(.init("torch_dtype", .string(dtype)))
    }
    return try ModelConfig(text: JSON.object(members).text().utf8, path: path)
  }

  private var modelType: String {
    switch family {
    case .llama, .llama3: "llama"
    case .mistral: "mistral"
    case .qwen: "qwen2"
    case .gemma: hasPostNorms ? "gemma2" : "gemma"
    }
  }

  private func ropeScaling() throws(CheckpointError) -> JSON? {
    if let factor = arguments["rope_frequency_adjustment_factor"], !factor.isNull {
      return .object([
        .init("rope_type", .string("llama3")), .init("factor", factor),
        .init("low_freq_factor", arguments["rope_low_freq_factor"] ?? .null),
        .init("high_freq_factor", arguments["rope_high_freq_factor"] ?? .null),
        .init("original_max_position_embeddings", arguments["rope_pretraining_sequence_length"] ?? .null),
      ])
    }
    let factor = arguments["rope_position_scaling_factor"]?.double ?? arguments["rope_scaling_factor"]?.double ?? 1
    return factor == 1 ? nil : .object([.init("rope_type", .string("linear")), .init("factor", .double(factor))])
  }
}
