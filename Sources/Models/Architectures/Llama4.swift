public import CheckpointIO
public import StrictJSON

/// The language model of Llama 4: attention inside chunks on layers that rotate, over everything with growing queries on the others; experts whose
/// inputs are weighed, beside one that sees every token (Meta 2025).
public enum Llama4: Architecture {
  public static let modelTypes = ["llama4", "llama4_text"]

  private struct Keys: Decodable {
    var intermediate_size_mlp, num_local_experts, num_experts_per_tok, interleave_moe_layer_step: Int?
    var no_rope_layer_interval, attention_chunk_size, floor_scale: Int?
    var moe_layers, no_rope_layers: [Int]?
    var layer_types: [String]?
    var attn_scale: Double?
    var use_qk_norm: Bool?
  }

  /// Which layers rotate and which are mixtures are rules over their numbers, or lists.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["no_rope_layers"] = .array(description.blocks.map { .integer($0.attention?.rotary == nil ? 0 : 1) })
    json["moe_layers"] = .array(
      description.blocks.indices.filter { description.blocks[$0].feedForward?.mixture != nil }.map { .integer($0) })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let config = config.ofText
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(
      config, DecoderDefaults(headSize: 128, keyValueHeads: 8, epsilon: 1e-5, rotaryBase: 500_000))
    let layers = model.blocks.count
    let interval = try config.positive(own.no_rope_layer_interval ?? 4, "no_rope_layer_interval")
    // The key's name says the opposite: 1 is for layers that rotate. An empty list says nothing.
    let listed = own.no_rope_layers.flatMap { $0.isEmpty ? nil : $0 }
    let rotates = listed?.map { $0 != 0 } ?? (0..<layers).map { ($0 + 1) % interval != 0 }
    // Absent is not null, which says that sequences are not cut.
    let chunk = own.attention_chunk_size ?? (config.json["attention_chunk_size"] == nil ? 8192 : nil)
    let types = own.layer_types ?? rotates.map { $0 && chunk != nil ? "chunked_attention" : "full_attention" }
    for (key, count) in [("no_rope_layers", rotates.count), ("layer_types", types.count)] where count != layers {
      throw .unsupportedOption(option: key, value: "\(count) entries", reason: "\(layers) layers need as many")
    }
    for type in types where type != "full_attention" && type != "chunked_attention" {
      throw .unsupportedOption(option: "layer_types", value: type, reason: "full_attention and chunked_attention are known")
    }
    let step = try config.positive(own.interleave_moe_layer_step ?? 1, "interleave_moe_layer_step")
    let sparse = own.moe_layers.map(Set.init)
    let mixture = try mixture(own, size: keys.intermediate_size)
    let scale =
      tunesTemperature(config) ? QueryScale(strength: Float(own.attn_scale ?? 0.1), stretch: own.floor_scale ?? 8192, shift: 1) : nil
    model.eachBlock { layer, block in
      block.attention?.chunk = types[layer] == "chunked_attention" ? chunk : nil
      if rotates[layer] {
        block.attention?.rotary?.isInterleaved = true
        block.attention?.queryKeyNorm = own.use_qk_norm ?? true ? .head : nil
        block.attention?.normalizesRotated = own.use_qk_norm ?? true
        block.attention?.hasNormWeights = false
      } else {
        block.attention?.rotary = nil
        block.attention?.queryScale = scale
      }
      block.feedForward?.hasBias = false
      if sparse?.contains(layer) ?? ((layer + 1) % step == 0) {
        block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
        block.feedForward?.mixture = mixture
      } else {
        block.feedForward?.size = own.intermediate_size_mlp ?? 16_384
        block.feedForward?.linears = FeedForwardLinears(
          .gated(gate: "feed_forward.gate_proj", up: "feed_forward.up_proj"), down: "feed_forward.down_proj")
      }
    }
    return model
  }

  private static func mixture(_ own: Keys, size: Int) throws(CheckpointError) -> MixtureDescription {
    var mixture = try MixtureDescription(
      experts: own.num_local_experts ?? 16, expertsPerToken: own.num_experts_per_tok ?? 1, normalizesWeights: false,
      router: "feed_forward.router", prefix: "feed_forward.experts.",
      shared: .init(size: size, prefix: "feed_forward.shared_expert.", gate: nil)
    ).checked()
    mixture.scoring = .sigmoid
    mixture.weighsInput = true
    mixture.stacked = StackedExperts(
      readers: "feed_forward.experts.gate_up_proj", down: "feed_forward.experts.down_proj", isTransposed: true, isReadSeparately: true)
    return mixture
  }

  /// Released configurations say so by a number.
  private static func tunesTemperature(_ config: ModelConfig) -> Bool {
    let value = config.json["attn_temperature_tuning"]
    return value?.bool ?? value?.integer.map { $0 != 0 } ?? true
  }
}
