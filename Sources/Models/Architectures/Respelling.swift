public import CheckpointIO
package import StrictJSON

extension Architecture {
  /// Sets the keys that Llama and its relatives share, then reads the result back: what comes out must be the model described.
  public static func configuration(
    of description: ModelDescription, keeping kept: [Int], in config: ModelConfig
  ) throws(CheckpointError) -> ModelConfig {
    let original = try describe(config)
    guard let block = description.blocks.first, let first = kept.first, original.blocks.indices.contains(first) else {
      throw .inexpressible(type: config.modelType, reason: "the model has no layers")
    }
    let before = original.blocks[first]
    if let heads = block.attention?.heads, let wasHeads = before.attention?.heads, description.hiddenSize % heads != 0,
      original.hiddenSize % wasHeads == 0
    {
      throw .inexpressible(
        type: config.modelType,
        reason: "a hidden size of \(description.hiddenSize) goes with \(heads) heads: transformers loads multiples only")
    }
    var (spelled, json) = (config, config.decoder)
    func set<Value: Equatable>(_ key: String, _ new: Value, _ old: Value, _ spelling: (Value) -> JSON) {
      if new != old { json[key] = spelling(new) }
    }
    set("hidden_size", description.hiddenSize, original.hiddenSize, JSON.integer)
    set("num_hidden_layers", description.blocks.count, original.blocks.count, JSON.integer)
    let layers = zip(description.blocks, kept).map { (own: $0.feedForward, before: original.blocks[$1].feedForward) }
    if let dense = layers.first(where: { $0.own != nil && $0.own?.mixture == nil }), let own = dense.own, let before = dense.before {
      set("intermediate_size", own.size, before.size, JSON.integer)
    }
    if let experts = description.experts, let before = original.experts, experts != before {
      let usual = config.modelType == "mixtral" ? "num_local_experts" : "num_experts"
      let key = ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"].first { json[$0] != nil } ?? usual
      json[key] = .integer(experts)
    }
    if let own = block.feedForward, let before = before.feedForward { set("mlp_bias", own.hasBias, before.hasBias, JSON.bool) }
    if let own = block.attention, let before = before.attention {
      set("num_attention_heads", own.heads, before.heads, JSON.integer)
      set("num_key_value_heads", own.keyValueHeads, before.keyValueHeads, JSON.integer)
      if own.hasOutputBias != before.hasOutputBias { json["attention_bias"] = .bool(own.hasOutputBias) }
    }
    set("rms_norm_eps", description.normEpsilon, original.normEpsilon) { .double(Double("\($0)") ?? Double($0)) }
    // A head size that followed from the other two has to be said once it no longer does; of several the family's own keys say.
    let sizes = Set(description.blocks.compactMap(\.attention?.headSize))
    if sizes.count == 1, let own = block.attention, json["head_dim"]?.isNull == false || own.heads * own.headSize != description.hiddenSize
    {
      json["head_dim"] = .integer(own.headSize)
    }
    if kept != Array(original.blocks.indices) {
      json.keepLayers(kept, of: original.blocks.count)
      respell(&json, for: description)
    }
    func windows(_ model: ModelDescription) -> [Int?] { model.blocks.map(\.attention?.window) }
    spelled.decoder = json
    // Rules over the numbers of layers say something else once there are fewer.
    let isMisread = (try? describe(spelled)).map { $0.blocks.count == description.blocks.count && windows($0) != windows(description) }
    if description.blocks.allSatisfy({ $0.attention != nil }), json["layer_types"]?.elements != nil || isMisread != false {
      let types = json["layer_types"]?.elements ?? []
      json["layer_types"] = .array(
        windows(description).enumerated().map { layer, window in
          // A type of another kind says more than we read of it.
          if types.indices.contains(layer), !["full_attention", "sliding_attention"].contains(types[layer].string) { return types[layer] }
          return .string(window == nil ? "full_attention" : "sliding_attention")
        })
      spelled.decoder = json
    }
    let read: ModelDescription
    do { read = try describe(spelled) } catch { throw .inexpressible(type: config.modelType, reason: "\(error)") }
    guard read == description else {
      throw .inexpressible(type: config.modelType, reason: read.firstDifference(from: description) ?? "its layers are what they became")
    }
    return spelled
  }
}

extension ModelConfig {
  /// The object that describes the language model: all of the configuration, or `text_config` where the model is a part of a larger one.
  package var decoder: JSON {
    get { nested ?? json }
    set { if nested == nil { json = newValue } else { json["text_config"] = newValue } }
  }

  private var nested: JSON? { json["text_config"].flatMap { $0.members != nil && json["hidden_size"] == nil ? $0 : nil } }
}

extension JSON {
  /// Shortens every list that has an entry for each layer, and numbers anew what names layers by their numbers.
  fileprivate mutating func keepLayers(_ kept: [Int], of count: Int) {
    for member in members ?? [] {
      guard let elements = member.value.elements, member.key.lowercased().contains("layer") else { continue }
      if member.key == "mlp_only_layers" {
        self[member.key] = .array(elements.compactMap { $0.integer.flatMap(kept.firstIndex).map { .integer($0) } })
      } else if elements.count == count {
        self[member.key] = .array(kept.map { elements[$0] })
      }
    }
  }
}

extension ModelDescription {
  /// Of the first mixture.
  fileprivate var experts: Int? { blocks.lazy.compactMap { $0.feedForward?.mixture?.experts }.first }

  /// What this, as a configuration states it, gets wrong about `other`.
  fileprivate func firstDifference(from other: ModelDescription) -> String? {
    if hiddenSize != other.hiddenSize { return "the hidden size is \(other.hiddenSize)" }
    if blocks.count != other.blocks.count { return "there are \(other.blocks.count) layers" }
    for (own, theirs) in zip(blocks, other.blocks) where own != theirs {
      let place = theirs.prefix.hasSuffix(".") ? String(theirs.prefix.dropLast()) : theirs.prefix
      func differs(_ name: String, _ own: Int?, _ theirs: Int?) -> String? {
        guard let own, let theirs, own != theirs else { return nil }
        return "\(place) has \(theirs) \(name) where all layers must have as many as the first, \(own)"
      }
      return differs("feed-forward channels", own.feedForward?.size, theirs.feedForward?.size)
        ?? differs("attention heads", own.attention?.heads, theirs.attention?.heads)
        ?? differs("key-value heads", own.attention?.keyValueHeads, theirs.attention?.keyValueHeads)
        ?? "\(place) differs from what its keys make of it: \(theirs) instead of \(own)"
    }
    if normEpsilon != other.normEpsilon { return "the norms' epsilon is \(other.normEpsilon)" }
    return nil
  }
}
