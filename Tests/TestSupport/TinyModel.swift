public import CompressKit
public import Foundation

/// Models of a few thousand weights, made on the spot from their names: no file, no seed, the same everywhere.
public enum TinyModel {
  /// A Llama configuration small enough for a test, with grouped queries.
  public static let config = """
    {"model_type":"llama","vocab_size":64,"hidden_size":32,"intermediate_size":64,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000.0,"max_position_embeddings":64,"tie_word_embeddings":false,
     "bos_token_id":1}
    """

  /// Element `index` of the tensor `name`: an FNV-1a hash of the name, mixed with the index; norms lie around 1, all else around 0.
  public static func element(_ name: String, _ index: Int) -> Float {
    var hash: UInt32 = 2_166_136_261
    for byte in name.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
    var x = hash &+ 2_654_435_761 &* UInt32(truncatingIfNeeded: index)
    x ^= x >> 15
    x = 2_246_822_519 &* x
    x ^= x >> 13
    let u = Double(x) / 4_294_967_296 - 0.5
    let isNorm = name.hasSuffix(".weight") && (name.lowercased().contains("norm") || name.contains(".ln_"))
    return Float(isNorm ? 1 + 0.5 * u : 0.5 * u)
  }

  /// All tensors of the model a configuration describes.
  public static func tensors(
    _ config: ModelConfig, dtype: DType = .float32, catalog: ArchitectureCatalog = .standard
  ) throws -> [NamedTensor] {
    let description = try catalog.describe(config)
    var tensors: [NamedTensor] = []
    for (name, shape) in description.tensorShapes {
      let values = (0..<shape.reduce(1, *)).map { element(name, $0) }
      tensors.append(NamedTensor(name: name, tensor: Tensor(values, shape: shape, dtype: dtype)))
    }
    return tensors
  }

  public static func checkpoint(_ json: String = config, dtype: DType = .float32) throws -> Checkpoint {
    let config = try ModelConfig(text: json.utf8)
    return Checkpoint(
      directory: URL(filePath: "/nonexistent"), config: config, tensors: MemoryTensorSource(try tensors(config, dtype: dtype)))
  }

  public static func model(_ json: String = config, dtype: DType = .float32) throws -> Model {
    try Model(try checkpoint(json, dtype: dtype))
  }

  /// Writes the model as a Hugging Face directory; it has no tokenizer, so what is run on it comes as token files.
  public static func write(to directory: URL, _ json: String = config, dtype: DType = .bfloat16) async throws {
    let config = try ModelConfig(text: json.utf8)
    let writer = try SafetensorsWriter(to: directory)
    try await writer.append(try tensors(config, dtype: dtype))
    try await writer.finish(files: [CheckpointFile("config.json", .text(json))])
  }

  /// Token sequences that look random and are not.
  public static func sequences(_ count: Int, length: Int, vocabulary: Int = 64) -> [[Int32]] {
    var random = KeyedRandomness(seed: 7, key: "sequences")
    return (0..<count).map { _ in (0..<length).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &random) } }
  }

  /// A NumPy file of one-dimensional int32 ids.
  public static func write(tokens: [Int32], to file: URL) throws {
    var header = "{'descr': '<i4', 'fortran_order': False, 'shape': (\(tokens.count),), }"
    header += String(repeating: " ", count: 63 - (10 + header.count) % 64) + "\n"
    var data = Data([0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(header.count & 255), UInt8(header.count >> 8)])
    data += Data(header.utf8)
    tokens.withUnsafeBytes { data += Data($0) }
    try data.write(to: file)
  }
}

extension Matrix {
  /// Numbers spread like a normal distribution, the same for the same key.
  public static func random(rows: Int, columns: Int, key: String, scale: Float = 1) -> Matrix {
    var random = KeyedRandomness(seed: 11, key: key)
    func uniform() -> Float { Float.random(in: -1...1, using: &random) }
    return Matrix(rows: rows, columns: columns, elements: (0..<rows * columns).map { _ in scale * (uniform() + uniform() + uniform()) })
  }
}
