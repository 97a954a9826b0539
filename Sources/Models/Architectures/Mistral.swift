public import CheckpointIO
public import StrictJSON

/// Mistral: Llama with a sliding window on every layer; Ministral, with windows by a list; Ministral 3, whose queries grow along the sequence; the
/// language models of Mistral Small 3 and 4 (Jiang et al. 2023; Mistral AI 2024, 2025, 2026).
public enum Mistral: Architecture {
  public static let modelTypes = ["mistral", "ministral", "ministral3", "mistral3"]

  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    if json["model_type"]?.string == "mistral4" { Mistral4.respell(&json, for: description) }
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config.ofText
    let type = config.json["model_type"]?.string ?? "mistral"
    if type == "mistral4" { return try Mistral4.describe(config) }
    guard modelTypes.contains(type) else {
      throw .unsupportedOption(
        option: "text_config.model_type", value: type, reason: "mistral, ministral, ministral3 and mistral4 are known")
    }
    let isThird = type == "ministral3"
    if isThird { config.sayRotation(factor: 16, positions: 16_384, base: 1e6) }
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(
      config, isThird ? DecoderDefaults(headSize: 128, keyValueHeads: 8, epsilon: 1e-5) : DecoderDefaults(keyValueHeads: 8))
    // A configuration that does not mention the window has one.
    let window = config.json["sliding_window"] == nil && !isThird ? 4096 : keys.sliding_window
    let slides = try keys.slides { _ in true }
    let scale = isThird ? try config.queryScale : nil
    model.eachBlock { layer, block in
      block.attention?.window = slides[layer] ? window : nil
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
      block.attention?.queryScale = scale
    }
    return model
  }
}

extension ModelConfig {
  /// What says how the rotation is stretched.
  private var rotation: JSON? {
    [json["rope_scaling"], json["rope_parameters"]].lazy.compactMap { $0 }.first { $0.members?.isEmpty == false }
  }

  /// Says what Ministral 3 and Mistral 4 mean where their configurations have no word on the rotation.
  mutating func sayRotation(factor: Double, positions: Int, base: Double) {
    guard rotation == nil else { return }
    json["rope_parameters"] = .object([
      .init("rope_type", .string("yarn")), .init("rope_theta", .double(base)), .init("factor", .double(factor)),
      .init("original_max_position_embeddings", .integer(positions)), .init("beta_fast", .double(32)), .init("beta_slow", .double(1)),
      .init("mscale_all_dim", .double(1)), .init("mscale", .double(1)), .init("llama_4_scaling_beta", .double(0.1)),
    ])
  }

  /// How queries grow along the sequence: each time it has become as long as the model was first trained for.
  var queryScale: QueryScale? {
    get throws(CheckpointError) {
      guard let strength = rotation?["llama_4_scaling_beta"]?.double else { return nil }
      guard let stretch = rotation?["original_max_position_embeddings"]?.double, stretch >= 1, stretch <= Double(Int32.max) else {
        throw .unsupportedOption(
          option: "llama_4_scaling_beta", value: "\(strength)", reason: "it needs \"original_max_position_embeddings\" beside it")
      }
      return QueryScale(strength: Float(strength), stretch: Int(stretch))
    }
  }
}
