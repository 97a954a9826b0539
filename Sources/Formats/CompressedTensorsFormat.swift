public import CheckpointIO
public import Models
public import StrictJSON
public import Tensors

/// The `pack-quantized` layout of compressed-tensors, which vLLM and transformers load.
///
/// Signed codes in offset binary, a row a little-endian bit string of 32-bit words (dense packing, compressed-tensors ≥ 0.18); scales in the
/// model's type; zero points packed along the rows. See the library's `pack_quantized` compressor for the definition.
public struct CompressedTensorsFormat: CheckpointFormat {
  public static let name = "compressed-tensors"
  public static let summary = "packed integer weights with scales (pack-quantized): vLLM, transformers"
  /// The library version whose files ours are byte-equal to.
  static let version = "0.20.0"
  public init() {}

  public func encode(_ weight: any Weight, module: String, storageType: DType) throws(FormatError) -> [NamedTensor] {
    guard let quantized = weight as? QuantizedMatrix else {
      return [plain(weight, module: module, storageType: storageType)]
    }
    let (rows, columns, bits) = (quantized.rows, quantized.columns, quantized.scheme.bits)
    guard [.bfloat16, .float16, .float32].contains(quantized.scheme.scaleType) else {
      throw .cannotStore(module: module, format: Self.name, reason: "scales of \(quantized.scheme.scaleType.rawValue)")
    }
    let packed = Kernel.pack(quantized.codes, rowLength: columns, bits: bits)
    var tensors = [
      NamedTensor(
        name: module + ".weight_packed", tensor: Tensor(dtype: .int32, shape: [rows, packed.count / max(rows, 1)], integers: packed)),
      NamedTensor(
        name: module + ".weight_scale",
        tensor: Tensor(quantized.scales.elements, shape: [rows, quantized.scales.columns], dtype: quantized.scheme.scaleType)),
      NamedTensor(
        name: module + ".weight_shape", tensor: Tensor(dtype: .int64, shape: [2], integers: [Int64(rows), Int64(columns)])),
    ]
    if let zeros = quantized.zeroPoints {
      // Packed along the outputs, so the bit strings run down the columns.
      let transposed = zeros.transposed()
      let words = Kernel.pack(transposed.elements.map { UInt8($0) }, rowLength: rows, bits: bits)
      let height = (rows * bits + 31) / 32
      let byWord = (0..<height).flatMap { word in (0..<zeros.columns).map { words[$0 * height + word] } }
      tensors.append(
        NamedTensor(name: module + ".weight_zero_point", tensor: Tensor(dtype: .int32, shape: [height, zeros.columns], integers: byWord)))
    }
    return tensors
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.json["quantization_config"], json["quant_method"]?.string == "compressed-tensors" else { return nil }
    let groups = try CompressedTensorsConfiguration(json)
    return { module, source throws(CheckpointError) in
      guard source.info(module + ".weight_packed") != nil else {
        guard source.info(module + ".weight_scale") == nil else {
          throw .unusableType(tensor: module, dtype: json["format"]?.string ?? "an unknown format", use: "pack-quantized weights")
        }
        return nil
      }
      return try Self.decode(module, source, try groups.scheme(of: module))
    }
  }

  private static func decode(
    _ module: String, _ source: any TensorSource, _ stored: CompressedTensorsConfiguration.Scheme
  ) throws(CheckpointError) -> QuantizedMatrix {
    func integers(_ name: String, _ type: DType) throws(CheckpointError) -> Tensor {
      let tensor = try source.tensor(module + name)
      guard tensor.dtype == type else { throw .unusableType(tensor: module + name, dtype: tensor.dtype.rawValue, use: type.rawValue) }
      return tensor
    }
    let shape = try integers(".weight_shape", .int64).integers(Int64.self).map { Int($0) }
    let packed = try integers(".weight_packed", .int32)
    let scales = try source.tensor(module + ".weight_scale")
    let bits = stored.bits
    guard shape.count == 2, shape.allSatisfy({ (1...Int(Int32.max)).contains($0) }),
      packed.shape == [shape[0], (shape[1] * bits + 31) / 32]
    else {
      throw .wrongShape(tensor: module + ".weight_packed", expected: shape, found: packed.shape)
    }
    let (rows, columns) = (shape[0], shape[1])
    let size = stored.groupSize ?? columns
    guard scales.dtype.isReadableAsFloat, scales.shape == [rows, columns / size], columns % size == 0 else {
      throw .wrongShape(tensor: module + ".weight_scale", expected: [rows, columns / size], found: scales.shape)
    }
    let groups = columns / size
    var zeros: Matrix?
    if !stored.symmetric {
      let tensor = try integers(".weight_zero_point", .int32)
      let height = (rows * bits + 31) / 32
      guard tensor.shape == [height, groups] else {
        throw .wrongShape(tensor: module + ".weight_zero_point", expected: [height, groups], found: tensor.shape)
      }
      let words = tensor.integers(UInt32.self)
      let byColumn = (0..<groups).flatMap { group in (0..<height).map { words[$0 * groups + group] } }
      let codes = Kernel.unpack(byColumn, rowLength: rows, bits: bits)
      zeros = Matrix(rows: groups, columns: rows, elements: codes.map { Float($0) }).transposed()
    }
    let scheme = QuantizationScheme(
      bits: bits, granularity: stored.groupSize.map { .group($0) } ?? .channel, symmetric: stored.symmetric, scaleType: scales.dtype)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: Kernel.unpack(packed.integers(UInt32.self), rowLength: columns, bits: bits),
      scales: Matrix(rows: rows, columns: groups, elements: scales.floats()), zeroPoints: zeros)
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.json
    json["quantization_config"] = nil
    guard modules.contains(where: { $0.scheme != nil }) else { return json }
    let tied = json["tie_word_embeddings"]?.bool == true && !modules.contains { $0.name == "lm_head" }
    if tied, let embedding = modules.first(where: { $0.isEmbedding && $0.scheme != nil }) {
      throw .cannotStore(
        module: embedding.name, format: Self.name,
        reason: "the head is tied to it and runtimes expect that matrix dense; leave the embedding out of the pass's layers")
    }
    json["quantization_config"] = CompressedTensorsConfiguration.json(for: modules, ignoring: tied ? ["lm_head"] : [])
    return json
  }
}

extension CheckpointFormat where Self == CompressedTensorsFormat {
  public static var compressedTensors: CompressedTensorsFormat { CompressedTensorsFormat() }
}
