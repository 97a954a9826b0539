public import CheckpointIO
public import Models
import Tensors

/// The checkpoints of NVIDIA's ModelOpt (TensorRT Model Optimizer), which TensorRT-LLM, vLLM and SGLang load: E4M3 and NVFP4. Read, not written.
///
/// Facts from ModelOpt 0.47. In E4M3 a module has `weight` and what it is multiplied by, `weight_scale`, one number or one for every output; in NVFP4
/// `weight`, bytes of two codes each, the first in the low half, `weight_scale`, E4M3 for every 16 inputs, and `weight_scale_2`, by which these are
/// multiplied. `input_scale` is what one E4M3 code of an input stands for; of NVFP4 the largest input over 448 · 6. `k_scale` and `v_scale` stand
/// below the projections that make keys and values.
public struct ModelOptFormat: ReadOnlyFormat {
  public static let name = "modelopt"
  public static let summary = "FP8 and NVFP4 as NVIDIA's ModelOpt exports them; read only"
  public static let instead = "compressed-tensors holds FP8 and NVFP4 weights"
  public init() {}

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let configuration = try ModelOptConfiguration(reading: config) else { return nil }
    var reader = WeightReader(
      components: ["weight", "weight_scale", "weight_scale_2", "input_scale", "k_scale", "v_scale"],
      holds: { module, source in
        if let info = source.info(module + ".weight"), [.float8E4M3, .uint8, .int8].contains(info.dtype) { return true }
        return source.info(module + ".weight_scale") != nil
      },
      weight: { module, source throws(CheckpointError) in
        switch try configuration.algorithm(of: module) {
        case .fp8, .fp8ByChannel: try Self.bytes(module, source)
        case .nvfp4, .nvfp4AWQ, .nvfp4Weights: try Self.nibbles(module, source)
        }
      },
      input: { module, source throws(CheckpointError) in
        switch try configuration.algorithm(of: module) {
        case .nvfp4Weights: return nil
        case .fp8ByChannel: return .fp8
        case .fp8:
          var input = InputQuantization.fp8Tensor
          input.scale = try CompressedTensorsFormat.number(module + ".input_scale", source)
          return input
        case .nvfp4, .nvfp4AWQ:
          var input = InputQuantization.nvfp4
          input.scale = 1 / (try CompressedTensorsFormat.number(module + ".input_scale", source))
          return input
        }
      },
      cache: { attention, source throws(CheckpointError) in
        guard configuration.quantizesCache else { return nil }
        func scale(_ name: String) throws(CheckpointError) -> CacheScale {
          CacheScale(grid: .float, scale: try CompressedTensorsFormat.number("\(attention).\(name)", source))
        }
        return CacheQuantization(key: try scale("k_proj.k_scale"), value: try scale("v_proj.v_scale"))
      })
    reader.knowsAllComponents = true
    return reader
  }

  /// E4M3 under one scale, or one for every row.
  private static func bytes(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let codes = try StoredTensors.matrix(module + ".weight", source, [.float8E4M3])
    let (rows, columns) = (codes.shape[0], codes.shape[1])
    let name = module + ".weight_scale"
    let stored = try source.tensor(name)
    guard StoredTensors.floats.contains(stored.dtype) else {
      throw .unusableType(tensor: name, dtype: stored.dtype.rawValue, use: "scales")
    }
    guard stored.elementCount == 1 || stored.shape == [rows] || stored.shape == [rows, 1] else {
      throw .wrongShape(tensor: name, expected: [rows], found: stored.shape)
    }
    let isWhole = stored.elementCount == 1
    let scheme = QuantizationScheme(bits: 8, grid: .float, granularity: isWhole ? .tensor : .channel, scaleType: stored.dtype)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: Array(codes.bytes),
      scales: Matrix(rows: isWhole ? 1 : rows, columns: 1, elements: stored.floats()), zeroPoints: nil)
  }

  /// E2M1 with scales of 16 inputs and one of the whole matrix.
  private static func nibbles(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let packed = try StoredTensors.matrix(module + ".weight", source, [.uint8])
    let (rows, columns) = (packed.shape[0], packed.shape[1] * 2)
    guard columns % 16 == 0 else {
      throw .wrongShape(tensor: module + ".weight", expected: [rows, (columns + 15) / 16 * 8], found: packed.shape)
    }
    let scales = try StoredTensors.matrix(module + ".weight_scale", source, [.float8E4M3], rows: rows, columns: columns / 16)
    let factor = try CompressedTensorsFormat.number(module + ".weight_scale_2", source)
    return QuantizedMatrix(
      scheme: .nvfp4, rows: rows, columns: columns, codes: packed.bytes.flatMap { [$0 & 15, $0 >> 4] },
      scales: Matrix(rows: rows, columns: columns / 16, elements: scales.bytes.map { MiniFloat.e4m3.values[Int($0)] }), zeroPoints: nil,
      globalScale: 1 / factor)
  }
}
