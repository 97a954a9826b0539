import CheckpointIO
import Models
import StrictJSON
import Tensors

/// `quantization_config` of a checkpoint with E4M3 weights and their scales in tiles.
struct FP8BlockConfiguration: Sendable {
  /// Of a scale; `nil` for one scale for a matrix.
  let tile: (rows: Int, columns: Int)?
  /// Whether inputs have a calibrated scale; otherwise theirs are found as they come.
  let isStatic: Bool

  init(_ json: JSON) throws(CheckpointError) {
    func refusal(_ key: String, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "quantization_config.\(key)", value: json[key]?.text() ?? "missing", reason: reason)
    }
    if let size = json["weight_block_size"], !size.isNull {
      let sides = size.elements?.compactMap(\.integer) ?? []
      guard sides.count == 2, sides.allSatisfy({ $0 > 0 && $0 <= 1 << 20 }) else {
        throw refusal("weight_block_size", "two positive numbers are needed, or null")
      }
      tile = (sides[0], sides[1])
    } else {
      tile = json["weight_block_size"] == nil && json["activation_scheme"]?.string != "static" ? (128, 128) : nil
    }
    if let format = json["fmt"]?.string, !["e4m3", "float8_e4m3fn"].contains(format.lowercased()) { throw refusal("fmt", "e4m3 is read") }
    if let type = json["expert_dtype"]?.string, type != "fp8" { throw refusal("expert_dtype", "experts in E4M3 are read") }
    switch json["activation_scheme"]?.string?.lowercased() ?? "dynamic" {
    case "dynamic": isStatic = false
    case "static": isStatic = true
    default: throw refusal("activation_scheme", "dynamic and static are known")
    }
  }

  /// - Throws: for scales that are missing or do not fit the tiles.
  func weight(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let codes = try StoredTensors.matrix(module + ".weight", source, [.float8E4M3])
    let (rows, columns) = (codes.shape[0], codes.shape[1])
    let granularity = tile.map { QuantizationScheme.Granularity.block(rows: $0.rows, columns: $0.columns) } ?? .tensor
    var scheme = QuantizationScheme(bits: 8, grid: .float, granularity: granularity, scaleType: .float32)
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    let name = module + ".weight_scale_inv"
    let stored = try source.tensor(name)
    guard stored.elementCount == shape.rows * shape.columns, stored.shape == [shape.rows, shape.columns] || tile == nil else {
      throw .wrongShape(tensor: name, expected: [shape.rows, shape.columns], found: stored.shape)
    }
    let scales: [Float]
    switch stored.dtype {
    case .float32, .bfloat16, .float16:
      scheme.scaleType = stored.dtype
      scales = stored.floats()
    // Powers of two, as DeepSeek has them from V3.1 on.
    case .float8E8M0, .uint8: scales = stored.bytes.map { PowerOfTwoScale.value($0) }
    default: throw .unusableType(tensor: name, dtype: stored.dtype.rawValue, use: "scales")
    }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: Array(codes.bytes),
      scales: Matrix(rows: shape.rows, columns: shape.columns, elements: scales), zeroPoints: nil)
  }

  func input(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> InputQuantization? {
    guard isStatic else { return tile.map { InputQuantization(bits: 8, grid: .float, granularity: .group($0.columns)) } ?? .fp8 }
    var input = InputQuantization.fp8Tensor
    input.scale = try CompressedTensorsFormat.number(module + ".activation_scale", source)
    return input
  }

  /// - Throws: where linears differ, which the format has no words for.
  static func json(for all: [StoredModule], names: ModuleNames) throws(FormatError) -> JSON {
    let (modules, parts) = names.apart(all)
    var side: Int?
    for module in modules {
      guard case .block(let rows, _)? = module.scheme?.granularity else { continue }
      guard side ?? rows == rows else {
        throw .cannotStore(
          module: module.name, format: FP8BlockFormat.name, reason: "all linears need the same tiles, and its are \(rows), others \(side!)")
      }
      side = rows
    }
    let dense = modules.filter { $0.scheme == nil && !$0.isEmbedding }.flatMap { names.spellings(of: $0.name) }
    let stay = parts.flatMap { [$0, "model.\($0)"] } + dense
    let tile = JSON.integer(side ?? 128)
    return .object([
      .init("quant_method", .string("fp8")), .init("fmt", .string("e4m3")), .init("activation_scheme", .string("dynamic")),
      .init("weight_block_size", .array([tile, tile])),
      .init("modules_to_not_convert", stay.isEmpty ? .null : .array(stay.map { .string($0) })),
    ])
  }
}
