public import CheckpointIO
public import Models
public import StrictJSON
import Tensors

/// gpt-oss as OpenAI releases it: experts in stacks of E2M1 with a power of two for every 32 inputs, all else in BF16. Read, not written.
///
/// For a stack such as `mlp.experts.gate_up_proj` there are `…_blocks`, [experts × outputs × groups × 16] bytes of two codes each, the first in the
/// low half, and `…_scales`, [experts × outputs × groups], exponents with a bias of 127 (OCP Microscaling 1.0). Outputs of gates and of what
/// they gate take turns.
public struct MXFP4Format: CheckpointFormat {
  public static let name = "mxfp4"
  public static let summary = "gpt-oss as released: experts in stacks of MXFP4; read only"
  public init() {}

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    throw .cannotStore(
      module: module, format: Self.name, reason: "it is read only; compressed-tensors holds MXFP4 weights, and so does mlx")
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON { config.withoutQuantization }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard config.json["quantization_config"]?["quant_method"]?.string?.lowercased() == "mxfp4" else { return nil }
    return WeightReader(
      components: ["weight"], covers: { name in name.hasSuffix("_proj_blocks") || name.hasSuffix("_proj_scales") },
      holds: { module, source in Place(module).map { source.info($0.stack + "_blocks") != nil } ?? false },
      weight: { module, source throws(CheckpointError) in
        guard let place = Place(module) else { throw .missingTensor(name: module + ".weight") }
        return try place.weight(source)
      })
  }

  /// Where the matrix of an expert's linear lies.
  private struct Place {
    let stack: String
    let expert: Int
    /// The first of its outputs in the stack, and how far it is to the next.
    let first: Int
    let step: Int

    /// - Parameter module: such as `model.layers.0.mlp.experts.3.up_proj`; `nil` for what is no expert's.
    init?(_ module: String) {
      let parts = module.split(separator: ".")
      guard parts.count > 3, parts[parts.count - 3] == "experts", let expert = Int(parts[parts.count - 2]) else { return nil }
      let prefix = parts.dropLast(2).joined(separator: ".")
      self.expert = expert
      switch parts[parts.count - 1] {
      case "gate_proj": (stack, first, step) = (prefix + ".gate_up_proj", 0, 2)
      case "up_proj": (stack, first, step) = (prefix + ".gate_up_proj", 1, 2)
      case "down_proj": (stack, first, step) = (prefix + ".down_proj", 0, 1)
      default: return nil
      }
    }

    func weight(_ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
      let blocks = try bytes(stack + "_blocks", dimensions: 4, source)
      let scales = try bytes(stack + "_scales", dimensions: 3, source)
      guard blocks.shape[3] == 16, blocks.shape.dropLast() == scales.shape[...], expert < blocks.shape[0], blocks.shape[1] % step == 0
      else {
        throw .wrongShape(tensor: stack + "_blocks", expected: scales.shape + [16], found: blocks.shape)
      }
      let (rows, groups) = (blocks.shape[1] / step, blocks.shape[2])
      let (pairs, exponents) = (Array(blocks.entry(expert).bytes), Array(scales.entry(expert).bytes))
      var codes: [UInt8] = []
      codes.reserveCapacity(rows * groups * 32)
      var values: [Float] = []
      for row in stride(from: first, to: rows * step, by: step) {
        for pair in pairs[row * groups * 16..<(row + 1) * groups * 16] { codes += [pair & 15, pair >> 4] }
        values += exponents[row * groups..<(row + 1) * groups].map { PowerOfTwoScale.value($0) }
      }
      return QuantizedMatrix(
        scheme: .mx(bits: 4), rows: rows, columns: groups * 32, codes: codes,
        scales: Matrix(rows: rows, columns: groups, elements: values), zeroPoints: nil)
    }

    private func bytes(_ name: String, dimensions: Int, _ source: any TensorSource) throws(CheckpointError) -> Tensor {
      let tensor = try source.tensor(name)
      guard tensor.dtype == .uint8 || tensor.dtype == .float8E8M0 else {
        throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "bytes")
      }
      guard tensor.shape.count == dimensions, tensor.elementCount > 0 else {
        throw .wrongShape(tensor: name, expected: Array(repeating: 1, count: dimensions), found: tensor.shape)
      }
      return tensor
    }
  }
}
