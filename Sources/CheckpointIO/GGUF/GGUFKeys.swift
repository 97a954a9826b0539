internal import StrictJSON

/// The metadata of a file, read as the `config.json` of the model it holds.
package struct GGUFKeys: Sendable {
  package let architecture: GGUFArchitecture
  private let metadata: GGUFMetadata
  private let path: String
  private let outline: Outline
  private let reading: GGUFReading

  /// What the tensors of a file add to its keys.
  package struct Outline: Sendable {
    /// By the file's own names; `nil` where there is no such tensor.
    var shape: @Sendable (String) -> [Int]?
    var tensorCount: Int
    /// What the rotary frequencies are divided by, where the file says.
    var rotaryFactors: GGUFRotary.Factors

    package init(shape: @escaping @Sendable (String) -> [Int]?, tensorCount: Int, rotaryFactors: GGUFRotary.Factors) {
      self.shape = shape
      self.tensorCount = tensorCount
      self.rotaryFactors = rotaryFactors
    }
  }

  /// - Throws: `CheckpointError` for an architecture that is not read.
  package init(_ metadata: GGUFMetadata, path: String, _ outline: Outline) throws(CheckpointError) {
    self.metadata = metadata
    self.path = path
    self.outline = outline
    guard let name = metadata["general.architecture"]?.string else {
      throw .malformedConfiguration(path: path, reason: "\"general.architecture\" is missing")
    }
    guard let architecture = GGUFArchitecture.layout(named: name, has: { outline.shape($0) != nil }) else {
      throw .unsupportedModel(type: name, known: GGUFArchitecture.names)
    }
    self.architecture = architecture
    reading = GGUFReading(architecture: name, metadata: metadata, path: path, shape: outline.shape)
  }

  /// The order of a tensor's rows, where they do not lie as in Hugging Face's checkpoints: row i of the file's is row `order[i]` of those.
  func rowOrder(of name: String, rows: Int) throws(CheckpointError) -> [Int]? {
    guard let module = GGUFNames.module(of: name), let rule = architecture.rows[module] else { return nil }
    let (heads, keyValueHeads) = (try reading.size("attention.head_count"), try reading.keyValueHeads())
    guard heads > 0, keyValueHeads > 0 else { return nil }
    guard let order = rule.order(rows: rows, heads: heads, keyValueHeads: keyValueHeads) else {
      throw .malformedTensor(
        path: path, tensor: name, offset: 0, reason: "\(rows) rows do not divide into \(heads) heads, \(keyValueHeads) of keys and values")
    }
    return order
  }

  /// `config.json` of the model.
  ///
  /// - Throws: `CheckpointError` for keys that are missing, malformed, or ask for what is not computed.
  package func config() throws(CheckpointError) -> ModelConfig {
    func has(_ name: String) -> Bool { outline.shape(name) != nil }
    let (hidden, heads, headSize) = (try reading.size("embedding_length"), try reading.size("attention.head_count"), try reading.headSize())
    if let value = try reading.optionalSize("attention.value_length"), value != headSize {
      throw reading.unsupported("attention.value_length", "\(value)", "keys have \(headSize)")
    }
    if architecture.mark == nil, !architecture.keys.contains(.experts), let experts = try reading.optionalSize("expert_count"), experts > 0
    {
      throw reading.unsupported("expert_count", "\(experts)", "the file has no tensors of experts")
    }
    guard let epsilon = reading.number(architecture.epsilon.rawValue) else { throw reading.missing(architecture.epsilon.rawValue) }
    let layers = try reading.size("block_count")
    // A description of every layer is made before its tensors are looked for.
    guard layers <= outline.tensorCount else {
      throw .malformedConfiguration(path: path, reason: "\(layers) blocks in a file of \(outline.tensorCount) tensors")
    }
    let vocabulary = outline.shape("token_embd.weight")?.first ?? 0
    let positions = try reading.size("context_length")
    var json = JSON.object([
      .init("model_type", .string(architecture.modelTypes[0])), .init("vocab_size", .integer(vocabulary)),
      .init("hidden_size", .integer(hidden)), .init("intermediate_size", .integer(try reading.size("feed_forward_length"))),
      .init("num_hidden_layers", .integer(layers)), .init("num_attention_heads", .integer(heads)),
      .init("num_key_value_heads", .integer(try reading.keyValueHeads())), .init("head_dim", .integer(headSize)),
      .init("hidden_act", .string(architecture.activation)),
      // The shortest decimal that is this single-precision number.
      .init(architecture.epsilon == .layer ? "layer_norm_eps" : "rms_norm_eps", .number("\(Float(epsilon))")),
      .init("max_position_embeddings", .integer(positions)),
    ])
    if architecture.rotates { json["rope_theta"] = .double(reading.number("rope.freq_base") ?? 10_000) }
    json["tie_word_embeddings"] = .bool(architecture.head == .absent || !has("output.weight"))
    json["attention_bias"] = .bool(try attentionBias())
    json["mlp_bias"] = .bool(has("blk.0.ffn_up.bias"))
    if architecture.rotates { try setRotation(in: &json, headSize: headSize, positions: positions) }
    if let rule = architecture.windows, let (width, slides) = try reading.windows(rule) {
      json["sliding_window"] = .integer(width)
      json["layer_types"] = .array(slides.map { .string($0 ? "sliding_attention" : "full_attention") })
    }
    try architecture.adapt(reading, &json)
    for (key, name) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
      if let id = metadata["tokenizer.ggml.\(name)_token_id"]?.integer { json[key] = .integer(id) }
    }
    json["quantization_config"] = .object([.init("quant_method", .string("gguf"))])
    return try ModelConfig(text: spelled(json).text().utf8, path: path)
  }

  private func attentionBias() throws(CheckpointError) -> Bool {
    let (inputs, output) = (reading.has("blk.0.attn_q.bias"), reading.has("blk.0.attn_output.bias"))
    if architecture.sharesBias, architecture.names.modules.contains(where: { $0.gguf == "attn_q" }), inputs != output {
      throw .unsupportedOption(
        option: "biases", value: inputs ? "of queries, keys and values" : "of the output",
        reason: "\(architecture.name) has them in all four projections or in none")
    }
    return inputs
  }

  private func setRotation(in json: inout JSON, headSize: Int, positions: Int) throws(CheckpointError) {
    let rotated = try reading.optionalSize("rope.dimension_count") ?? headSize
    if rotated != headSize {
      guard !architecture.rotatesWholeHeads else {
        throw reading.unsupported("rope.dimension_count", "\(rotated)", "only whole heads of \(headSize) are rotated in this architecture")
      }
      json["partial_rotary_factor"] = .double(Double(rotated) / Double(headSize))
    }
    let rotary = GGUFRotary(
      architecture: architecture.name, metadata: metadata, rotated: rotated, base: reading.number("rope.freq_base") ?? 10_000,
      positions: positions, readsYarn: architecture.readsYarn)
    if let scaling = try rotary.scaling(outline.rotaryFactors) { json["rope_scaling"] = scaling }
  }

  /// The family's own names of keys.
  private func spelled(_ json: JSON) -> JSON {
    guard !architecture.spelling.isEmpty else { return json }
    return .object(
      (json.members ?? []).compactMap { member in
        guard let name = architecture.spelling[member.key] else { return member }
        return name.isEmpty ? nil : JSON.Member(name, member.value)
      })
  }
}

extension GGUFArchitecture {
  /// Whether llama.cpp opens files only where heads are rotated as a whole, or their rows lie so that nothing else makes sense.
  package var rotatesWholeHeads: Bool { name == "falcon" || rows["attn_q"] != nil }
}
