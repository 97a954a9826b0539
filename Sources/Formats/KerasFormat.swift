public import CheckpointIO
internal import Foundation
public import StrictJSON

/// A KerasHub preset of dense weights, for Llama and the families that share its shape: what `keras_hub.models.Backbone.from_preset` loads.
///
/// Tokenizers of Hugging Face lie beside it as they came; KerasHub has files of its own for them and reads none of these.
public struct KerasFormat: DenseFormat {
  public static let name = "keras"
  public static let summary = "a KerasHub preset of dense weights (Llama, Mistral, Qwen2), HDF5 inside"
  public init() {}

  /// Layers of a backbone have a place each.
  public var holdsAnyTensors: Bool { false }

  /// Also checks that KerasHub has a backbone for the model.
  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    _ = try preset(config)
    return config.withoutQuantization
  }

  public func files(describing modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> [CheckpointFile] {
    let metadata = JSON.object([.init("keras_version", .string("3.15.1")), .init("keras_hub_version", .string("0.32.0"))])
    return [
      CheckpointFile("config.json", .text(try preset(config).text(indent: 4) + "\n")),
      CheckpointFile("metadata.json", .text(metadata.text(indent: 4) + "\n")),
    ]
  }

  public func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter {
    try KerasHubWriter(into: stage)
  }

  /// KerasHub's `config.json`.
  private func preset(_ config: ModelConfig) throws(FormatError) -> JSON {
    func refused(_ reason: String) -> FormatError { .cannotStore(module: "the model", format: Self.name, reason: reason) }
    let json = config.json
    let classes = ["llama": ("Llama3Backbone", "llama3"), "mistral": ("MistralBackbone", "mistral"), "qwen2": ("QwenBackbone", "qwen")]
    guard let (name, module) = classes[config.modelType] else {
      throw refused("there is no place for a model of type \(config.modelType); \(classes.keys.sorted().joined(separator: ", ")) have one")
    }
    func number(_ key: String) throws(FormatError) -> JSON {
      guard let value = json[key], value.double != nil else { throw refused("config.json has no \(key)") }
      return value
    }
    guard let hidden = json["hidden_size"]?.integer, let heads = json["num_attention_heads"]?.integer, heads > 0,
      json["head_dim"]?.integer.map({ $0 == hidden / heads }) ?? true
    else { throw refused("its heads are not hidden size / heads wide") }
    guard json["attention_bias"]?.bool != true, json["mlp_bias"]?.bool != true,
      ["silu", "swish"].contains(json["hidden_act"]?.string ?? "silu")
    else { throw refused("its biases or its activation are not KerasHub's") }
    let rope = json["rope_scaling"].flatMap { $0.isNull ? nil : $0 } ?? json["rope_parameters"] ?? .object([])
    let dtype = json["torch_dtype"]?.string ?? json["dtype"]?.string ?? "float32"
    let policy = JSON.object([
      .init("module", .string("keras")), .init("class_name", .string("DTypePolicy")),
      .init("config", .object([.init("name", .string(dtype))])), .init("registered_name", .null),
    ])
    var arguments: [JSON.Member] = [
      .init("name", .string("\(module)_backbone")), .init("trainable", .bool(true)), .init("dtype", policy),
      .init("vocabulary_size", try number("vocab_size")), .init("num_layers", try number("num_hidden_layers")),
      .init("num_query_heads", .integer(heads)), .init("hidden_dim", .integer(hidden)),
      .init("intermediate_dim", try number("intermediate_size")),
      .init("num_key_value_heads", json["num_key_value_heads"] ?? .integer(heads)),
      .init("layer_norm_epsilon", json["rms_norm_eps"] ?? .number("1e-06")),
      .init("rope_max_wavelength", rope["rope_theta"] ?? json["rope_theta"] ?? .integer(10_000)), .init("dropout", .integer(0)),
    ]
    switch rope["rope_type"]?.string ?? rope["type"]?.string ?? "default" {
    case "default": break
    case "linear":
      arguments.append(.init(name == "Llama3Backbone" ? "rope_position_scaling_factor" : "rope_scaling_factor", rope["factor"] ?? .null))
    case "llama3" where name == "Llama3Backbone":
      arguments += [
        .init("rope_frequency_adjustment_factor", rope["factor"] ?? .null), .init("rope_low_freq_factor", rope["low_freq_factor"] ?? .null),
        .init("rope_high_freq_factor", rope["high_freq_factor"] ?? .null),
        .init("rope_pretraining_sequence_length", rope["original_max_position_embeddings"] ?? .null),
      ]
    case let other: throw refused("KerasHub does not stretch its rotations by \(other)")
    }
    if name == "MistralBackbone" {
      arguments.append(.init("sliding_window", json["sliding_window"] ?? .integer(4096)))
    } else {
      arguments.append(.init("tie_word_embeddings", .bool(json["tie_word_embeddings"]?.bool == true)))
    }
    return .object([
      .init("module", .string("keras_hub.src.models.\(module).\(module)_backbone")), .init("class_name", .string(name)),
      .init("config", .object(arguments)), .init("registered_name", .string("keras_hub>\(name)")),
    ])
  }
}
