public import CheckpointIO
public import StrictJSON

/// SmolLM3: Llama without rotation on every fourth layer (Bakouch et al. 2025).
public enum SmolLM3: Architecture {
  public static let modelTypes = ["smollm3"]

  private struct Keys: Decodable {
    var no_rope_layers: [Int]?
    var no_rope_layer_interval: Int?
  }

  /// Which layers rotate is a rule over their numbers, or a list.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["no_rope_layers"] = .array(description.blocks.map { .integer($0.attention?.rotary == nil ? 0 : 1) })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 4, isTied: true, rotaryBase: 2e6))
    let interval = own.no_rope_layer_interval ?? 4
    guard interval > 0 else {
      throw .unsupportedOption(option: "no_rope_layer_interval", value: "\(interval)", reason: "a positive number is needed")
    }
    // The key's name says the opposite: 1 is for layers that rotate.
    let rotates = own.no_rope_layers?.map { $0 != 0 } ?? model.blocks.indices.map { ($0 + 1) % interval != 0 }
    guard rotates.count == model.blocks.count else {
      throw .unsupportedOption(
        option: "no_rope_layers", value: "\(rotates.count) entries", reason: "\(model.blocks.count) layers need as many")
    }
    let slides = try keys.slides { keys.use_sliding_window == true && !rotates[$0] }
    model.eachBlock { layer, block in
      if slides[layer] { block.attention?.window = keys.sliding_window }
      if !rotates[layer] { block.attention?.rotary = nil }
    }
    return model
  }
}
