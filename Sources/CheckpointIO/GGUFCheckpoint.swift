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
    keys = try GGUFKeys(file)
    var (names, stored): ([String], [String: String]) = ([], [:])
    // Factors of the rotary frequencies are part of the configuration.
    for name in file.names where name != GGUFKeys.ropeFactors {
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

  public func config() throws(CheckpointError) -> ModelConfig { try keys.config(file) }

  public var files: [URL] { file.files }

  public func info(_ name: String) -> TensorInfo? { stored[name].flatMap { file.info($0) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let own = stored[name] else { throw .missingTensor(name: name) }
    let tensor = try file.tensor(own)
    guard let heads = keys.permutedHeads(own), let rows = tensor.shape.first else { return tensor }
    guard rows % (2 * heads) == 0 else {
      throw .malformedTensor(path: file.path, tensor: own, offset: 0, reason: "\(rows) rows do not divide into \(heads) heads")
    }
    return tensor.rows(inOrder: GGUFNames.halvesOrder(rows: rows, heads: heads))
  }
}

/// The keys of a GGUF file's metadata that describe a Llama-like model.
struct GGUFKeys: Sendable {
  static let ropeFactors = "rope_freqs.weight"
  /// Architectures that are read, and their `model_type`.
  static let modelTypes = ["llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"]

  let architecture: String
  private let modelType: String
  private let metadata: GGUFMetadata
  private let path: String

  init(_ file: GGUFFile) throws(CheckpointError) {
    metadata = file.metadata
    path = file.path
    guard let name = metadata["general.architecture"]?.string else {
      throw .malformedConfiguration(path: path, reason: "\"general.architecture\" is missing")
    }
    guard let type = Self.modelTypes[name] else { throw .unsupportedModel(type: name, known: Self.modelTypes.keys.sorted()) }
    architecture = name
    modelType = type
  }

  /// The heads whose rows lie in llama.cpp's order, for a tensor of this name.
  func permutedHeads(_ name: String) -> Int? {
    guard GGUFNames.rotatesNeighbours(architecture), name.hasPrefix("blk.") else { return nil }
    let heads = metadata["\(architecture).attention.head_count"]?.integer ?? 1
    let part = name.split(separator: ".").dropFirst(2).first
    let count = part == "attn_q" ? heads : part == "attn_k" ? metadata["\(architecture).attention.head_count_kv"]?.integer ?? heads : nil
    return count.flatMap { $0 > 0 ? $0 : nil }
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

  func config(_ file: GGUFFile) throws(CheckpointError) -> ModelConfig {
    func has(_ name: String) -> Bool { file.info(name) != nil }
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
    guard layers <= file.names.count else {
      throw .malformedConfiguration(path: path, reason: "\(layers) blocks in a file of \(file.names.count) tensors")
    }
    let vocabulary = file.info("token_embd.weight")?.shape.first ?? 0
    var members: [JSON.Member] = [
      .init("model_type", .string(modelType)), .init("vocab_size", .integer(vocabulary)), .init("hidden_size", .integer(hidden)),
      .init("intermediate_size", .integer(try size("feed_forward_length"))), .init("num_hidden_layers", .integer(layers)),
      .init("num_attention_heads", .integer(heads)),
      .init("num_key_value_heads", .integer(try optionalSize("attention.head_count_kv") ?? heads)),
      .init("head_dim", .integer(headSize)), .init("hidden_act", .string("silu")),
      // The shortest decimal that is this single-precision number.
      .init("rms_norm_eps", .number("\(Float(epsilon))")), .init("max_position_embeddings", .integer(try size("context_length"))),
      .init("rope_theta", .double(value("rope.freq_base")?.double ?? 10_000)),
      .init("tie_word_embeddings", .bool(!has("output.weight"))), .init("attention_bias", .bool(try attentionBias(has))),
      .init("mlp_bias", .bool(has("blk.0.ffn_gate.bias"))),
    ]
    if let scaling = try ropeScaling(file, headSize: headSize) { members.append(.init("rope_scaling", scaling)) }
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

  private func ropeScaling(_ file: GGUFFile, headSize: Int) throws(CheckpointError) -> JSON? {
    if file.info(Self.ropeFactors) != nil {
      let factors = try file.tensor(Self.ropeFactors)
      guard factors.dtype == .float32, factors.shape == [headSize / 2] else {
        throw .wrongShape(tensor: Self.ropeFactors, expected: [headSize / 2], found: factors.shape)
      }
      let base = value("rope.freq_base")?.double ?? 10_000
      guard let scaling = LlamaRopeScaling(factors: factors.floats(), base: base) else {
        throw .unsupportedOption(option: Self.ropeFactors, value: "\(factors.floats())", reason: "they are not those of Llama 3")
      }
      return scaling.json
    }
    switch value("rope.scaling.type")?.string ?? "none" {
    case "none": return nil
    case "linear":
      return .object([
        .init("rope_type", .string("linear")), .init("factor", .double(value("rope.scaling.factor")?.double ?? 1)),
      ])
    case let other: throw .unsupportedOption(option: "\(architecture).rope.scaling.type", value: other, reason: "none and linear are read")
    }
  }
}

/// How Llama 3.1 and later stretch their rotary frequencies: what GGUF files store as one factor per pair of dimensions.
public struct LlamaRopeScaling: Sendable, Equatable {
  public var factor, low, high, originalPositions: Double

  public init(factor: Double, low: Double, high: Double, originalPositions: Double) {
    self.factor = factor
    self.low = low
    self.high = high
    self.originalPositions = originalPositions
  }

  /// Finds the published parameters that give these factors; `nil` where none do.
  init?(factors: [Float], base: Double) {
    guard let index = factors.indices.max(by: { factors[$0] < factors[$1] }) else { return nil }
    let (low, high, largest) = (1.0, 4.0, Double(factors[index]))
    let wavelength = Self.wavelength(index, headSize: 2 * factors.count, base: base)
    for originalPositions in [8192.0, 4096, 16384, 32768] {
      // Short heads have no pair that is stretched all the way: the whole factor follows from how far the longest is.
      let blend = max(0, (originalPositions / wavelength - low) / (high - low))
      let factor = ((1 - blend) / (1 / largest - blend) * 1000).rounded() / 1000
      guard factor.isFinite, factor >= 1 else { continue }
      let candidate = LlamaRopeScaling(factor: factor, low: low, high: high, originalPositions: originalPositions)
      let found = candidate.factors(headSize: 2 * factors.count, base: base)
      guard zip(found, factors).allSatisfy({ abs($0 - $1) <= 1e-4 * abs($1) }) else { continue }
      self = candidate
      return
    }
    return nil
  }

  private static func wavelength(_ pair: Int, headSize: Int, base: Double) -> Double {
    2 * Double.pi / pow(base, -2 * Double(pair) / Double(headSize))
  }

  /// What each pair's frequency is divided by.
  public func factors(headSize: Int, base: Double) -> [Float] {
    (0..<headSize / 2).map { i in
      let wavelength = Self.wavelength(i, headSize: headSize, base: base)
      if wavelength < originalPositions / high { return 1 }
      if wavelength > originalPositions / low { return Float(factor) }
      let blend = (originalPositions / wavelength - low) / (high - low)
      return Float(1 / ((1 - blend) / factor + blend))
    }
  }

  var json: JSON {
    .object([
      .init("rope_type", .string("llama3")), .init("factor", .double(factor)), .init("low_freq_factor", .double(low)),
      .init("high_freq_factor", .double(high)), .init("original_max_position_embeddings", .double(originalPositions)),
    ])
  }
}
