public import CheckpointIO
public import Models
import StrictJSON
import Tensors

/// The safetensors of torchao as transformers saves them: 8-bit integers, 4-bit integers in plain packing, and E4M3. Read, not written.
///
/// Facts from torchao 0.18. A module has `_weight_qdata` and `_weight_scale`, and where integers have them `_weight_zero_point`. Of 8 bits, data are
/// [outputs × inputs], scales one, one for every output, for every run of its inputs, or for every tile, and zero points are subtracted from codes. Of
/// 4 bits, a byte holds two signed codes, the first in the low half, scales and zero points are [groups × outputs], and the zero points are real:
/// they are added after scaling.
public struct TorchAOFormat: ReadOnlyFormat {
  public static let name = "torchao"
  public static let summary = "8- and 4-bit integers and E4M3 as transformers saves torchao's; read only"
  public static let instead = "compressed-tensors holds 8-bit integers and E4M3, mlx integers with biases"
  public init() {}

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.quantization, json["quant_method"]?.string?.lowercased() == Self.name else { return nil }
    var reader = WeightReader(
      components: ["weight", "_weight_qdata", "_weight_scale", "_weight_zero_point"],
      holds: { module, source in source.info(module + "._weight_qdata") != nil || source.info(module + "._weight_scale") != nil },
      weight: { module, source throws(CheckpointError) in
        switch source.info(module + "._weight_qdata")?.dtype {
        case .float8E4M3: return try Self.floats(module, source)
        default:
          // What has halves of bytes has real zero points; its scales lie the other way round.
          let zeros = source.info(module + "._weight_zero_point")?.dtype
          return zeros.map { StoredTensors.floats.contains($0) } == true
            ? try Self.halves(module, source) : try Self.integers(module, source)
        }
      })
    reader.knowsAllComponents = true
    let types = Self.types(in: json["quant_type"] ?? .null).filter { $0.contains("Activation") }.sorted()
    if !types.isEmpty {
      reader.remarks = ["torchao rounds the inputs of linears too (\(types.joined(separator: ", "))); here inputs stay as they are"]
    }
    return reader
  }

  /// The names of all configurations in one.
  private static func types(in json: JSON) -> Set<String> {
    var found = Set((json.members ?? []).filter { $0.key == "_type" }.compactMap(\.value.string))
    for inner in (json.members ?? []).map(\.value) + (json.elements ?? []) { found.formUnion(types(in: inner)) }
    return found
  }

  private static func scales(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> Tensor {
    let scales = try StoredTensors.matrix(module + "._weight_scale", source, StoredTensors.floats)
    guard !scales.holdsNonfinite else { throw .nonfiniteWeight(tensor: module + "._weight_scale") }
    return scales
  }

  /// Which numbers share a scale, as the shape of the scales says.
  private static func granularity(
    _ module: String, _ scales: Tensor, rows: Int, columns: Int
  ) throws(CheckpointError) -> QuantizationScheme.Granularity {
    let (height, width) = (scales.shape[0], scales.shape[1])
    switch (height, width) {
    case (1, 1) where rows > 1: return .tensor
    case (rows, 1): return .channel
    case (rows, _) where columns % width == 0: return .group(columns / width)
    case _ where rows % height == 0 && columns % width == 0: return .block(rows: rows / height, columns: columns / width)
    default: throw .wrongShape(tensor: module + "._weight_scale", expected: [rows, 1], found: scales.shape)
    }
  }

  private static func floats(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let codes = try StoredTensors.matrix(module + "._weight_qdata", source, [.float8E4M3])
    let scales = try scales(module, source)
    let (rows, columns) = (codes.shape[0], codes.shape[1])
    let scheme = QuantizationScheme(
      bits: 8, grid: .float, granularity: try granularity(module, scales, rows: rows, columns: columns), scaleType: scales.dtype)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: Array(codes.bytes),
      scales: Matrix(rows: scales.shape[0], columns: scales.shape[1], elements: scales.floats()), zeroPoints: nil)
  }

  private static func integers(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let codes = try StoredTensors.matrix(module + "._weight_qdata", source, [.int8])
    let scales = try scales(module, source)
    let (rows, columns, name) = (codes.shape[0], codes.shape[1], module + "._weight_zero_point")
    var zeros = [Float](repeating: 128, count: scales.elementCount)
    if source.info(name) != nil {
      let stored = try StoredTensors.matrix(name, source, [.int8], rows: scales.shape[0], columns: scales.shape[1])
      zeros = stored.bytes.map { Float($0 ^ 0x80) }
    }
    let isSymmetric = zeros.allSatisfy { $0 == 128 }
    let scheme = QuantizationScheme(
      bits: 8, granularity: try granularity(module, scales, rows: rows, columns: columns), symmetric: isSymmetric, scaleType: scales.dtype)
    func matrix(_ values: [Float]) -> Matrix { Matrix(rows: scales.shape[0], columns: scales.shape[1], elements: values) }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes.bytes.map { $0 ^ 0x80 }, scales: matrix(scales.floats()),
      zeroPoints: isSymmetric ? nil : matrix(zeros))
  }

  private static func halves(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let packed = try StoredTensors.matrix(module + "._weight_qdata", source, [.int8, .uint8])
    let (rows, columns) = (packed.shape[0], packed.shape[1] * 2)
    let scales = try scales(module, source)
    guard scales.shape[1] == rows, columns % scales.shape[0] == 0 else {
      throw .wrongShape(tensor: module + "._weight_scale", expected: [scales.shape[0], rows], found: scales.shape)
    }
    let stored = try StoredTensors.matrix(
      module + "._weight_zero_point", source, StoredTensors.floats, rows: scales.shape[0], columns: rows)
    let (steps, added) = (StoredTensors.transposedFloats(scales), StoredTensors.transposedFloats(stored))
    let scheme = QuantizationScheme(bits: 4, granularity: .group(columns / scales.shape[0]), zeroPoint: .real, scaleType: .float32)
    // Signed codes count from the middle of the grid.
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: packed.bytes.flatMap { [($0 & 15) ^ 8, ($0 >> 4) ^ 8] }, scales: steps,
      zeroPoints: Matrix(rows: rows, columns: steps.columns, elements: zip(steps.elements, added.elements).map { $1 - 8 * $0 }))
  }
}
