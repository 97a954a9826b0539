public import CheckpointIO
public import StrictJSON

/// EXAONE 4: norms behind the layers, windows on most layers, and rotation under these alone; its mixtures, with norms before the layers
/// (LG AI Research 2025).
public enum EXAONE: Architecture {
  public static let modelTypes = ["exaone4", "exaone_moe"]

  /// Which layers are mixtures is a list, or a number of dense ones.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    guard description.blocks.contains(where: { $0.feedForward?.mixture != nil }) else { return }
    json["mlp_layer_types"] = nil
    RoutedExperts.respell(&json, for: description)
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let isMixture = config.modelType == "exaone_moe"
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 32, epsilon: 1e-5))
    let window = config.json["sliding_window"] == nil ? 4096 : keys.sliding_window
    let slides = try slides(keys, hasWindows: window != nil, config)
    model.eachBlock { layer, block in
      block.attention?.queryKeyNorm = .head
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
      block.attention?.window = slides[layer] ? window : nil
      if window != nil, !slides[layer] { block.attention?.rotary = nil }
      block.feedForward?.hasBias = false
      guard !isMixture else { return }
      block.norms = NormPlacement(
        beforeAttention: nil, afterAttention: "post_attention_layernorm", beforeFeedForward: nil,
        afterFeedForward: "post_feedforward_layernorm")
    }
    guard isMixture else { return model }
    var experts = try config.decode(RoutedExperts.self)
    if let types = config.json["mlp_layer_types"]?.elements?.compactMap(\.string) {
      let dense = types.prefix { $0 == "dense" }.count
      guard types.count == model.blocks.count, !types.dropFirst(dense).contains("dense") else {
        throw .unsupportedOption(
          option: "mlp_layer_types", value: "\(types.count) entries", reason: "dense layers come first here, then mixtures")
      }
      experts.first_k_dense_replace = dense
    }
    try experts.apply(
      to: &model, .init(experts: 64, perToken: 8, size: 1024, denseLayers: 1, scale: 2.5), correction: "mlp.e_score_correction_bias")
    return model
  }

  /// The layers with windows, by a list, by a number, or by a word with a letter for each of a few layers: `L` for a window, `G` for none.
  private static func slides(_ keys: DecoderKeys, hasWindows: Bool, _ config: ModelConfig) throws(CheckpointError) -> [Bool] {
    let pattern = config.json["sliding_window_pattern"]
    guard hasWindows, keys.layer_types == nil else { return try keys.slides { _ in false } }
    if let word = pattern?.string.map(Array.init), !word.isEmpty {
      return (0..<keys.num_hidden_layers).map { word[$0 % word.count] == "L" && $0 + 1 < keys.num_hidden_layers }
    }
    let step = try config.positive(pattern?.integer ?? 4, "sliding_window_pattern")
    return try keys.slides { ($0 + 1) % step != 0 }
  }
}
