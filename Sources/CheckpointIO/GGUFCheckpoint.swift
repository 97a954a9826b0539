public import Foundation
internal import StrictJSON
public import Tensors

/// A GGUF file seen as a Hugging Face checkpoint: its names, its order of the rows of queries and keys, its configuration.
public struct GGUFCheckpoint: TensorSource {
  public let file: GGUFFile
  public let names: [String]
  private let keys: GGUFKeys
  private let stored: [String: String]

  /// - Throws: `CheckpointError` for an architecture or a tensor whose place in the model is not known.
  public init(_ file: GGUFFile) throws(CheckpointError) {
    self.file = file
    keys = try GGUFKeys(file.metadata, path: file.path)
    var (names, stored): ([String], [String: String]) = ([], [:])
    // Factors of the rotary frequencies are part of the configuration.
    for name in file.names where name != GGUFRotary.factorsName {
      guard let translated = GGUFNames.huggingFace(of: name) else {
        throw .malformedTensor(
          path: file.path, tensor: name, offset: 0, reason: "no part of a \(keys.architecture) model that is known here has this name")
      }
      names.append(translated)
      stored[translated] = name
    }
    self.names = names
    self.stored = stored
  }

  public func config() throws(CheckpointError) -> ModelConfig {
    let factors = try file.info(GGUFRotary.factorsName).map { _ throws(CheckpointError) in try file.tensor(GGUFRotary.factorsName) }
    return try keys.config(.init(shape: { file.info($0)?.shape }, tensorCount: file.names.count, rotaryFactors: factors))
  }

  public var files: [URL] { file.files }

  public func info(_ name: String) -> TensorInfo? { stored[name].flatMap { file.info($0) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let own = stored[name] else { throw .missingTensor(name: name) }
    let tensor = try file.tensor(own)
    guard let heads = try keys.permutedHeads(own), let rows = tensor.shape.first else { return tensor }
    guard rows % (2 * heads) == 0 else {
      throw .malformedTensor(path: file.path, tensor: own, offset: 0, reason: "\(rows) rows do not divide into \(heads) heads")
    }
    return tensor.rows(inOrder: GGUFNames.halvesOrder(rows: rows, heads: heads))
  }
}

/// The keys of a GGUF file's metadata that describe a Llama-like model.
package struct GGUFKeys: Sendable {
  /// Architectures that are read, and their `model_type`.
  static let modelTypes = ["llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"]

  let architecture: String
  private let modelType: String
  private let metadata: GGUFMetadata
  private let path: String

  /// What the tensors of a file add to its keys.
  package struct Outline {
    /// By the file's own names; `nil` where there is no such tensor.
    var shape: (String) -> [Int]?
    var tensorCount: Int
    /// What the rotary frequencies are divided by, where the file says.
    var rotaryFactors: Tensor?

    package init(shape: @escaping (String) -> [Int]?, tensorCount: Int, rotaryFactors: Tensor?) {
      self.shape = shape
      self.tensorCount = tensorCount
      self.rotaryFactors = rotaryFactors
    }
  }

  /// - Throws: `CheckpointError` for an architecture that is not read.
  package init(_ metadata: GGUFMetadata, path: String) throws(CheckpointError) {
    self.metadata = metadata
    self.path = path
    guard let name = metadata["general.architecture"]?.string else {
      throw .malformedConfiguration(path: path, reason: "\"general.architecture\" is missing")
    }
    guard let type = Self.modelTypes[name] else { throw .unsupportedModel(type: name, known: Self.modelTypes.keys.sorted()) }
    architecture = name
    modelType = type
  }

  /// The heads whose rows lie in llama.cpp's order, for a tensor of this name.
  func permutedHeads(_ name: String) throws(CheckpointError) -> Int? {
    guard GGUFNames.rotatesNeighbours(architecture), name.hasPrefix("blk.") else { return nil }
    let heads: Int
    switch name.split(separator: ".").dropFirst(2).first {
    case "attn_q": heads = try size("attention.head_count")
    case "attn_k": heads = try keyValueHeads()
    default: return nil
    }
    return heads > 0 ? heads : nil
  }

  private func keyValueHeads() throws(CheckpointError) -> Int {
    guard let heads = try optionalSize("attention.head_count_kv") else { return try size("attention.head_count") }
    return heads
  }

  private func value(_ key: String) -> GGUFValue? { metadata["\(architecture).\(key)"] }

  private func size(_ key: String) throws(CheckpointError) -> Int {
    guard let value = try optionalSize(key) else {
      throw .malformedConfiguration(path: path, reason: "\"\(architecture).\(key)\" is missing")
    }
    return value
  }

  private func optionalSize(_ key: String) throws(CheckpointError) -> Int? {
    guard let value = value(key) else { return nil }
    if let elements = value.elements {
      // One number a layer; only models whose layers are alike are described.
      guard let first = elements.first?.integer, first > 0, elements.allSatisfy({ $0.integer == first }) else {
        throw .unsupportedOption(option: "\(architecture).\(key)", value: "an array", reason: "layers that differ are not read")
      }
      return first
    }
    guard let number = value.integer, number >= 0, number < 1 << 31 else {
      throw .malformedConfiguration(path: path, reason: "\"\(architecture).\(key)\" should be a whole number")
    }
    return number
  }

  /// `config.json` of the model.
  ///
  /// - Throws: `CheckpointError` for keys that are missing, malformed, or ask for what is not computed.
  package func config(_ outline: Outline) throws(CheckpointError) -> ModelConfig {
    func has(_ name: String) -> Bool { outline.shape(name) != nil }
    let (hidden, heads) = (try size("embedding_length"), try size("attention.head_count"))
    guard heads > 0 else { throw .malformedConfiguration(path: path, reason: "\"\(architecture).attention.head_count\" is 0") }
    let headSize = try optionalSize("attention.key_length") ?? hidden / heads
    if let value = try optionalSize("attention.value_length"), value != headSize {
      throw .unsupportedOption(option: "\(architecture).attention.value_length", value: "\(value)", reason: "keys have \(headSize)")
    }
    if let rotated = try optionalSize("rope.dimension_count"), rotated != headSize {
      throw .unsupportedOption(
        option: "\(architecture).rope.dimension_count", value: "\(rotated)", reason: "only whole heads of \(headSize) are rotated so far")
    }
    if let experts = try optionalSize("expert_count"), experts > 0 {
      throw .unsupportedOption(option: "\(architecture).expert_count", value: "\(experts)", reason: "mixtures of experts are not read")
    }
    guard let epsilon = value("attention.layer_norm_rms_epsilon")?.double else {
      throw .malformedConfiguration(path: path, reason: "\"\(architecture).attention.layer_norm_rms_epsilon\" is missing")
    }
    let layers = try size("block_count")
    // A description of every layer is made before its tensors are looked for.
    guard layers <= outline.tensorCount else {
      throw .malformedConfiguration(path: path, reason: "\(layers) blocks in a file of \(outline.tensorCount) tensors")
    }
    let vocabulary = outline.shape("token_embd.weight")?.first ?? 0
    let (positions, base) = (try size("context_length"), value("rope.freq_base")?.double ?? 10_000)
    var members: [JSON.Member] = [
      .init("model_type", .string(modelType)), .init("vocab_size", .integer(vocabulary)), .init("hidden_size", .integer(hidden)),
      .init("intermediate_size", .integer(try size("feed_forward_length"))), .init("num_hidden_layers", .integer(layers)),
      .init("num_attention_heads", .integer(heads)),
      .init("num_key_value_heads", .integer(try keyValueHeads())),
      .init("head_dim", .integer(headSize)), .init("hidden_act", .string("silu")),
      // The shortest decimal that is this single-precision number.
      .init("rms_norm_eps", .number("\(Float(epsilon))")), .init("max_position_embeddings", .integer(positions)),
      .init("rope_theta", .double(base)),
      .init("tie_word_embeddings", .bool(!has("output.weight"))), .init("attention_bias", .bool(try attentionBias(has))),
      .init("mlp_bias", .bool(has("blk.0.ffn_gate.bias"))),
    ]
    let rotary = GGUFRotary(architecture: architecture, metadata: metadata, headSize: headSize, base: base, positions: positions)
    if let scaling = try rotary.scaling(factors: outline.rotaryFactors) { members.append(.init("rope_scaling", scaling)) }
    for (key, name) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
      if let id = metadata["tokenizer.ggml.\(name)_token_id"]?.integer { members.append(.init(key, .integer(id))) }
    }
    members.append(.init("quantization_config", .object([.init("quant_method", .string("gguf"))])))
    return try ModelConfig(text: JSON.object(members).text().utf8, path: path)
  }

  private func attentionBias(_ has: (String) -> Bool) throws(CheckpointError) -> Bool {
    let (inputs, output) = (has("blk.0.attn_q.bias"), has("blk.0.attn_output.bias"))
    if architecture != "qwen2", inputs != output {
      throw .unsupportedOption(
        option: "biases", value: inputs ? "of queries, keys and values" : "of the output",
        reason: "\(architecture) has them in all four projections or in none")
    }
    return inputs
  }
}
