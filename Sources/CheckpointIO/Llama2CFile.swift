public import Foundation
internal import StrictJSON
public import Tensors

/// A model of llama2.c (`.bin`): a header of seven numbers, then all weights as F32 in a fixed order, seen as a Hugging Face checkpoint.
///
/// Both forms are read, the legacy one, which has no mark and is known by its length, and version 1. The rows of queries and keys are put
/// into the order that halves of heads are rotated in.
public struct Llama2CFile: TensorSource {
  public let path: String
  public let names: [String]
  private let data: Data
  private let sizes: Sizes
  private let places: [String: Place]

  private struct Place {
    var offset: Int
    var shape: [Int]
    /// Whose rows lie in the order of neighbours.
    var heads: Int?
  }

  /// The numbers of the header.
  private struct Sizes {
    var hidden, feedForward, layers, heads, keyValueHeads, vocabulary, positions: Int
    var isTied: Bool
    var headSize: Int { hidden / heads }
    var keyValueSize: Int { headSize * keyValueHeads }
  }

  static let magic: [UInt8] = [0x32, 0x34, 0x6B, 0x61]

  /// - Throws: `CheckpointError` for a header that is not possible, for another length than it implies, and for the quantized version 2.
  public init(_ url: URL) throws(CheckpointError) {
    let data = try MappedFile.open(url)
    let path = url.path
    (self.data, self.path) = (data, path)
    let isLegacy = !data.starts(with: Self.magic)
    sizes = try data.parse { bytes throws(CheckpointError) in try Self.header(bytes, path: path) }
    let layout = Self.layout(sizes, isLegacy: isLegacy)
    guard let layout, layout.end == data.count else {
      throw .wrongLength(path: path, needed: layout?.end ?? .max, found: data.count)
    }
    names = layout.names
    places = layout.places
  }

  private static func header(_ bytes: UnsafeRawBufferPointer, path: String) throws(CheckpointError) -> Sizes {
    let isLegacy = !bytes.holds(magic, at: 0)
    func malformed(_ reason: String) -> CheckpointError { .malformedHeader(path: path, offset: 0, reason: reason) }
    if !isLegacy {
      let version = bytes.little(Int32.self, at: 4) ?? 0
      guard version == 1 else { throw malformed("version \(version) of llama2.c; the legacy form and version 1 are read") }
    }
    var numbers: [Int] = []
    for index in 0..<7 {
      guard let number = bytes.little(Int32.self, at: (isLegacy ? 0 : 8) + 4 * index) else { throw malformed("the header is cut off") }
      numbers.append(Int(number))
    }
    var isTied = bytes.little(UInt8.self, at: 36) == 1
    if isLegacy {
      // A negative vocabulary says that the head is stored.
      isTied = numbers[5] > 0
      numbers[5] = abs(numbers[5])
    }
    guard numbers.allSatisfy({ (1..<1 << 28).contains($0) }) else { throw malformed("sizes \(numbers) are no model of llama2.c") }
    let sizes = Sizes(
      hidden: numbers[0], feedForward: numbers[1], layers: numbers[2], heads: numbers[3], keyValueHeads: numbers[4],
      vocabulary: numbers[5], positions: numbers[6], isTied: isTied)
    guard sizes.hidden % (2 * sizes.heads) == 0, sizes.heads % sizes.keyValueHeads == 0 else {
      throw malformed("\(sizes.heads) and \(sizes.keyValueHeads) heads do not divide a width of \(sizes.hidden)")
    }
    // A description of every layer is made before the length is compared.
    guard sizes.layers <= bytes.count / 32 else { throw malformed("\(sizes.layers) layers in a file of \(bytes.count) bytes") }
    return sizes
  }

  private struct Layout {
    var names: [String] = []
    var places: [String: Place] = [:]
    var end: Int
    /// Whether a size was too large to count.
    var overflows = false

    mutating func add(_ name: String, _ shape: [Int], heads: Int? = nil) {
      names.append(name + ".weight")
      places[name + ".weight"] = Place(offset: end, shape: shape, heads: heads)
      skip(shape)
    }

    mutating func skip(_ shape: [Int]) {
      let (sum, overflow) = end.addingReportingOverflow(shape.byteCount(bits: 32) ?? .max)
      if overflow { overflows = true } else { end = sum }
    }
  }

  private static func layout(_ sizes: Sizes, isLegacy: Bool) -> Layout? {
    var layout = Layout(end: isLegacy ? 28 : 256)
    let (hidden, wide) = (sizes.hidden, sizes.feedForward)
    func everyLayer(_ name: String, _ shape: [Int], heads: Int? = nil) {
      for layer in 0..<sizes.layers { layout.add("model.layers.\(layer).\(name)", shape, heads: heads) }
    }
    func attention() {
      everyLayer("self_attn.q_proj", [hidden, hidden], heads: sizes.heads)
      everyLayer("self_attn.k_proj", [sizes.keyValueSize, hidden], heads: sizes.keyValueHeads)
      everyLayer("self_attn.v_proj", [sizes.keyValueSize, hidden])
      everyLayer("self_attn.o_proj", [hidden, hidden])
    }
    func feedForward() {
      everyLayer("mlp.gate_proj", [wide, hidden])
      everyLayer("mlp.down_proj", [hidden, wide])
      everyLayer("mlp.up_proj", [wide, hidden])
    }
    if isLegacy {
      layout.add("model.embed_tokens", [sizes.vocabulary, hidden])
      everyLayer("input_layernorm", [hidden])
      attention()
      everyLayer("post_attention_layernorm", [hidden])
      feedForward()
      layout.add("model.norm", [hidden])
      // Cosines and sines, which are recomputed.
      for _ in 0..<2 { layout.skip([sizes.positions, sizes.headSize / 2]) }
    } else {
      everyLayer("input_layernorm", [hidden])
      everyLayer("post_attention_layernorm", [hidden])
      layout.add("model.norm", [hidden])
      layout.add("model.embed_tokens", [sizes.vocabulary, hidden])
      attention()
      feedForward()
    }
    if !sizes.isTied { layout.add("lm_head", [sizes.vocabulary, hidden]) }
    return layout.overflows ? nil : layout
  }

  /// What `config.json` would say; llama2.c itself has the epsilon and the base of the rotation in its code.
  public func config() throws(CheckpointError) -> ModelConfig {
    let json = JSON.object([
      .init("architectures", .array([.string("LlamaForCausalLM")])), .init("model_type", .string("llama")),
      .init("vocab_size", .integer(sizes.vocabulary)), .init("hidden_size", .integer(sizes.hidden)),
      .init("intermediate_size", .integer(sizes.feedForward)), .init("num_hidden_layers", .integer(sizes.layers)),
      .init("num_attention_heads", .integer(sizes.heads)), .init("num_key_value_heads", .integer(sizes.keyValueHeads)),
      .init("head_dim", .integer(sizes.headSize)), .init("hidden_act", .string("silu")),
      .init("max_position_embeddings", .integer(sizes.positions)), .init("rms_norm_eps", .number("1e-05")),
      .init("rope_theta", .number("10000.0")), .init("tie_word_embeddings", .bool(sizes.isTied)), .init("attention_bias", .bool(false)),
      .init("mlp_bias", .bool(false)), .init("bos_token_id", .integer(1)), .init("eos_token_id", .integer(2)),
      .init("torch_dtype", .string("float32")),
    ])
    return try ModelConfig(text: json.text().utf8, path: path)
  }

  public var files: [URL] { [URL(filePath: path)] }

  public func info(_ name: String) -> TensorInfo? { places[name].map { TensorInfo(dtype: .float32, shape: $0.shape) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let place = places[name] else { throw .missingTensor(name: name) }
    let bytes = data.slice(at: place.offset, count: place.shape.reduce(4, *))
    let tensor = Tensor(dtype: .float32, shape: place.shape, bytes: bytes, isMapped: true)
    guard let heads = place.heads else { return tensor }
    return tensor.rows(inOrder: GGUFRows.halves(rows: place.shape[0], heads: heads))
  }
}
