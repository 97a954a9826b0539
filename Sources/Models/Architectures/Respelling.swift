public import CheckpointIO
import StrictJSON

extension Architecture {
  /// Sets the keys that Llama and its relatives share, then reads the result back: what comes out must be the model described.
  public static func configuration(of description: ModelDescription, in config: ModelConfig) throws(CheckpointError) -> ModelConfig {
    let original = try describe(config)
    guard let block = description.blocks.first, let before = original.blocks.first else {
      throw .inexpressible(type: config.modelType, reason: "the model has no layers")
    }
    let (hidden, heads) = (description.hiddenSize, block.attention.heads)
    guard hidden % heads == 0 || original.hiddenSize % before.attention.heads != 0 else {
      throw .inexpressible(
        type: config.modelType, reason: "a hidden size of \(hidden) goes with \(heads) heads: transformers loads multiples only")
    }
    var spelled = config
    func set<Value: Equatable>(_ key: String, _ new: Value, _ old: Value, _ json: (Value) -> JSON) {
      if new != old { spelled.json[key] = json(new) }
    }
    set("hidden_size", description.hiddenSize, original.hiddenSize, JSON.integer)
    set("num_hidden_layers", description.blocks.count, original.blocks.count, JSON.integer)
    set("intermediate_size", block.feedForward.size, before.feedForward.size, JSON.integer)
    if let experts = description.experts, let before = original.experts, experts != before {
      let key = config.json["num_local_experts"] == nil && config.modelType != "mixtral" ? "num_experts" : "num_local_experts"
      spelled.json[key] = .integer(experts)
    }
    set("mlp_bias", block.feedForward.hasBias, before.feedForward.hasBias, JSON.bool)
    set("num_attention_heads", block.attention.heads, before.attention.heads, JSON.integer)
    set("num_key_value_heads", block.attention.keyValueHeads, before.attention.keyValueHeads, JSON.integer)
    if block.attention.hasOutputBias != before.attention.hasOutputBias {
      spelled.json["attention_bias"] = .bool(block.attention.hasOutputBias)
    }
    set("rms_norm_eps", description.normEpsilon, original.normEpsilon) { .double(Double("\($0)") ?? Double($0)) }
    // A head size that followed from the other two has to be said once it no longer does.
    if spelled.json["head_dim"]?.isNull == false || block.attention.heads * block.attention.headSize != description.hiddenSize {
      spelled.json["head_dim"] = .integer(block.attention.headSize)
    }
    if config.json["layer_types"]?.elements != nil {
      spelled.json["layer_types"] = .array(
        description.blocks.map { .string($0.attention.window == nil ? "full_attention" : "sliding_attention") })
    }
    let read: ModelDescription
    do { read = try describe(spelled) } catch { throw .inexpressible(type: config.modelType, reason: "\(error)") }
    guard read == description else {
      throw .inexpressible(type: config.modelType, reason: read.firstDifference(from: description) ?? "its layers are what they became")
    }
    return spelled
  }
}

extension ModelDescription {
  /// Of the first mixture.
  fileprivate var experts: Int? { blocks.lazy.compactMap { $0.feedForward.mixture?.experts }.first }

  /// What this, as a configuration states it, gets wrong about `other`.
  fileprivate func firstDifference(from other: ModelDescription) -> String? {
    if hiddenSize != other.hiddenSize { return "the hidden size is \(other.hiddenSize)" }
    if blocks.count != other.blocks.count { return "there are \(other.blocks.count) layers" }
    for (own, theirs) in zip(blocks, other.blocks) where own != theirs {
      let place = theirs.prefix.hasSuffix(".") ? String(theirs.prefix.dropLast()) : theirs.prefix
      func differs(_ name: String, _ own: Int, _ theirs: Int) -> String? {
        own == theirs ? nil : "\(place) has \(theirs) \(name) where all layers must have as many as the first, \(own)"
      }
      return differs("feed-forward channels", own.feedForward.size, theirs.feedForward.size)
        ?? differs("attention heads", own.attention.heads, theirs.attention.heads)
        ?? differs("key-value heads", own.attention.keyValueHeads, theirs.attention.keyValueHeads)
        ?? "\(place) differs from what its keys make of it: \(theirs) instead of \(own)"
    }
    if normEpsilon != other.normEpsilon { return "the norms' epsilon is \(other.normEpsilon)" }
    return nil
  }
}
