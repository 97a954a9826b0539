public import CheckpointIO
public import Models
import StrictJSON
import Tensors

/// The checkpoints of HQQ (Badri and Shaji 2023) as transformers saves them. Read, not written; the pass `hqq` quantizes by the same method.
///
/// Facts from hqq 0.2.8. A module has `W_q`, codes of 1, 2, 3, 4 or 8 bits packed so that distant rows share a byte (ten a word of 32 bits, where
/// they have 3), `scale` and `zero`, real numbers: a weight is (code − zero) · scale. What else there is says how: `nbits`, `shape`, `group_size`,
/// and `axis`, 1 where a group is a run of a row and 0 where it is every (rows · columns / `group_size`)-th weight; words are stored as bytes.
public struct HQQFormat: ReadOnlyFormat {
  public static let name = "hqq"
  public static let summary = "half-quadratic quantization as transformers saves it; read only"
  public static let instead = "mlx holds integers with biases, gptq and compressed-tensors those with whole zero points"
  public init() {}

  /// Names of all that HQQ stores of a module beside its bias.
  private static let components: Set<String> = [
    "W_q", "scale", "zero", "nbits", "group_size", "shape", "axis", "packing", "unpack_view_dtype", "view_as_float", "quant_scale",
    "quant_zero",
    "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize", "round_zero",
  ]

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.quantization, json["quant_method"]?.string?.lowercased() == Self.name else { return nil }
    var reader = WeightReader(
      components: Self.components,
      holds: { module, source in source.info(module + ".W_q") != nil || source.info(module + ".scale") != nil },
      weight: { module, source throws(CheckpointError) in try Self.weight(module, source) })
    reader.knowsAllComponents = true
    return reader
  }

  private static func weight(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> any Weight {
    /// Whole numbers that a tensor of any integer type holds.
    func integers(_ name: String) throws(CheckpointError) -> [Int] {
      let tensor = try source.tensor("\(module).\(name)")
      switch tensor.dtype {
      case .int64: return tensor.integers(Int64.self).map { Int(clamping: $0) }
      case .int32: return tensor.integers(Int32.self).map { Int($0) }
      case .uint8: return tensor.integers(UInt8.self).map { Int($0) }
      default: throw .unusableType(tensor: "\(module).\(name)", dtype: tensor.dtype.rawValue, use: "whole numbers")
      }
    }
    func refusal(_ name: String, _ value: String, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "\(module).\(name)", value: value, reason: reason)
    }
    for name in ["quant_scale", "quant_zero"] where source.info("\(module).\(name)") != nil {
      guard try integers(name).allSatisfy({ $0 == 0 }) else {
        throw refusal(name, "true", "scales and zeros that are codes themselves are not read")
      }
    }
    let shape = try integers("shape")
    guard shape.count == 2, shape.allSatisfy({ (1...1 << 30).contains($0) }) else {
      throw .wrongShape(tensor: module + ".shape", expected: [2], found: source.info(module + ".shape")?.shape ?? [])
    }
    let (rows, columns, count) = (shape[0], shape[1], shape[0] * shape[1])
    let bits = try integers("nbits").first ?? 0
    guard [1, 2, 3, 4, 8].contains(bits) else { throw refusal("nbits", "\(bits)", "1, 2, 3, 4 and 8 bits are read") }
    let axis = try integers("axis").first ?? -1
    guard axis == 0 || axis == 1 else { throw refusal("axis", "\(axis)", "0 and 1 are known") }
    // Where it is not stored, a group is a whole row, or a whole column.
    let size = source.info(module + ".group_size") == nil ? (axis == 1 ? columns : rows) : try integers("group_size").first ?? 0
    guard size > 0, count % size == 0 else { throw refusal("group_size", "\(size)", "it does not divide the \(count) weights") }
    let groups = count / size
    let scales = try vector(module + ".scale", source, count: groups)
    let zeros = try vector(module + ".zero", source, count: groups)
    let (height, width) = axis == 1 ? (groups, size) : (size, groups)
    let packing = RowPacking(
      bits: bits, slots: bits == 3 ? 10 : 8 / bits, bytesPerWord: bits == 3 ? 4 : 1, startsHigh: true, rows: height, columns: width)
    let packed = try source.tensor(module + ".W_q")
    guard packed.bytes.count == packing.byteCount else {
      throw .wrongShape(tensor: module + ".W_q", expected: [packing.height, packing.columns], found: packed.shape)
    }
    guard axis == 1, columns % size == 0 else {
      let (scaleValues, zeroValues) = (scales.floats(), zeros.floats())
      return ForeignWeight(form: "hqq\(bits) g\(size) axis \(axis)", rows: rows, columns: columns, tensors: [packed, scales, zeros]) {
        range in
        let places = range.lowerBound * columns..<range.upperBound * columns
        return zip(places, packing.codes(places, in: packed)).map { place, code in
          let group = axis == 1 ? place / size : place % groups
          return (Float(code) - zeroValues[group]) * scaleValues[group]
        }
      }
    }
    return matrix(packing.codes(0..<count, in: packed), bits: bits, rows: rows, columns: columns, size: size, scales, zeros)
  }

  /// Groups that are runs of rows, with whole zero points where they are.
  private static func matrix(
    _ codes: [UInt8], bits: Int, rows: Int, columns: Int, size: Int, _ scales: Tensor, _ zeros: Tensor
  ) -> QuantizedMatrix {
    var scheme = QuantizationScheme(
      bits: bits, granularity: size == columns ? .channel : .group(size), zeroPoint: .integer, scaleType: scales.dtype)
    let (scaleValues, zeroValues) = (scales.floats(), zeros.floats())
    func matrix(_ values: [Float]) -> Matrix { Matrix(rows: rows, columns: columns / size, elements: values) }
    guard zeroValues.contains(where: { $0 != $0.rounded() || !(0...scheme.top).contains($0) }) else {
      return QuantizedMatrix(
        scheme: scheme, rows: rows, columns: columns, codes: codes, scales: matrix(scaleValues), zeroPoints: matrix(zeroValues))
    }
    // (code − zero) · scale is scale · code + bias; the product of two halves is a number of single precision.
    (scheme.zeroPoint, scheme.scaleType) = (.real, .float32)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes, scales: matrix(scaleValues),
      zeroPoints: matrix(zip(scaleValues, zeroValues).map { -$0 * $1 }))
  }

  private static func vector(_ name: String, _ source: any TensorSource, count: Int) throws(CheckpointError) -> Tensor {
    let tensor = try source.tensor(name)
    guard StoredTensors.floats.contains(tensor.dtype) else {
      throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "numbers")
    }
    guard tensor.elementCount == count else { throw .wrongShape(tensor: name, expected: [count], found: tensor.shape) }
    guard !tensor.holdsNonfinite else { throw .nonfiniteWeight(tensor: name) }
    return tensor
  }
}
