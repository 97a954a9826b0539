public import CheckpointIO
public import Models
import Foundation
import StrictJSON
import Tensors

/// The checkpoints of optimum-quanto: integers of 2, 4 and 8 bits, E4M3 and E5M2. Read, not written.
///
/// Facts from optimum-quanto 0.2.7. `quanto_qmap.json` names the modules. With 8 bits a module has `weight._data`, [outputs × inputs], and
/// `weight._scale`, one for every output; with fewer `weight._data._data`, where groups are rows that share bytes from far apart, the first in the
/// lowest bits, `weight._scale` for every group, and `weight._shift`: subtracted after scaling, or, where it is whole, before. `input_scale` and
/// `output_scale` are of activations.
public struct QuantoFormat: ReadOnlyFormat, FamilyAwareFormat {
  public static let name = "quanto"
  public static let summary = "integers and 8-bit floats as optimum-quanto saves them; read only"
  public static let instead = "compressed-tensors holds 8-bit integers and E4M3 by rows, mlx integers with biases"
  private static let fileName = "quanto_qmap.json"
  /// What says how many outputs a linear has: groups alone do not.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard config.quantization == nil, let map = try Self.map(beside: config) else { return nil }
    let description = try architectures.describe(config)
    let heights = Dictionary(
      description.blocks.flatMap { block in block.linearShapes.map { (block.prefix + $0.key.rawValue, $0.value.rows) } }
        + [(description.ownHead, description.vocabularySize)]
    ) { first, _ in first }
    let kinds = map.mapValues { $0["weights"]?.string ?? "none" }
    var reader = WeightReader(
      components: ["weight", "weight._data", "weight._data._data", "weight._scale", "weight._shift", "input_scale", "output_scale"],
      holds: { module, source in
        (kinds[module] ?? "none") != "none"
          || ["_data", "_data._data", "_scale"].contains { source.info("\(module).weight.\($0)") != nil }
      },
      weight: { module, source throws(CheckpointError) in
        let kind = kinds[module] ?? "missing"
        switch kind {
        case "qint8", "qfloat8", "qfloat8_e4m3fn", "qfloat8_e5m2": return try Self.bytes(module, source)
        case "qint4", "qint2":
          guard let rows = heights[module] else {
            throw .unsupportedOption(
              option: Self.fileName, value: module, reason: "the model has no linear of this name, so its shape is not known")
          }
          return try Self.packed(module, source, bits: kind == "qint4" ? 4 : 2, rows: rows)
        default:
          throw .unsupportedOption(
            option: "\(Self.fileName): \(module).weights", value: kind, reason: "qint2, qint4, qint8, qfloat8 and qfloat8_e5m2 are read")
        }
      })
    reader.knowsAllComponents = true
    let active = map.keys.filter { (map[$0]?["activations"]?.string ?? "none") != "none" }.sorted()
    if let first = active.first {
      reader.remarks = [
        "quanto rounds what goes in and out of \(active.count) modules, such as \(first); here activations stay as they are"
      ]
    }
    return reader
  }

  /// What lies beside a configuration that was read from a directory.
  private static func map(beside config: ModelConfig) throws(CheckpointError) -> [String: JSON]? {
    guard config.path.hasPrefix("/") else { return nil }
    let url = URL(filePath: config.path).deletingLastPathComponent().appending(path: fileName)
    guard let data = try? Data(contentsOf: url) else { return nil }
    guard let members = (try? JSON(parsing: data))?.members else {
      throw .malformedConfiguration(path: url.path, reason: "it is no JSON object")
    }
    return Dictionary(members.map { ($0.key, $0.value) }) { first, _ in first }
  }

  /// Codes of 8 bits with a scale for every row.
  private static func bytes(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> any Weight {
    let stored = try StoredTensors.matrix(module + ".weight._data", source, [.int8, .float8E4M3, .float8E5M2])
    let (rows, columns) = (stored.shape[0], stored.shape[1])
    let scales = try StoredTensors.matrix(module + ".weight._scale", source, StoredTensors.floats, rows: rows, columns: 1)
    let values = Matrix(rows: rows, columns: 1, elements: scales.floats())
    if stored.dtype == .float8E5M2 {
      return ForeignWeight(form: "e5m2 channel", rows: rows, columns: columns, tensors: [stored, scales]) { range in
        range.flatMap { row in
          // The upper half of a number of half precision.
          stored.entry(row).bytes.map { values.elements[row] * Float(Float16(bitPattern: UInt16($0) << 8)) }
        }
      }
    }
    let isInteger = stored.dtype == .int8
    let scheme = QuantizationScheme(bits: 8, grid: isInteger ? .integer : .float, granularity: .channel, scaleType: scales.dtype)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: isInteger ? stored.bytes.map { $0 ^ 0x80 } : Array(stored.bytes), scales: values,
      zeroPoints: nil)
  }

  /// Codes of fewer bits in groups.
  private static func packed(
    _ module: String, _ source: any TensorSource, bits: Int, rows: Int
  ) throws(CheckpointError) -> QuantizedMatrix {
    let stored = try StoredTensors.matrix(module + ".weight._data._data", source, [.uint8])
    let scales = try source.tensor(module + ".weight._scale")
    guard StoredTensors.floats.contains(scales.dtype) else {
      throw .unusableType(tensor: module + ".weight._scale", dtype: scales.dtype.rawValue, use: "scales")
    }
    let (groups, size) = (scales.elementCount, stored.shape[1])
    let packing = RowPacking(bits: bits, slots: 8 / bits, startsHigh: false, rows: groups, columns: size)
    guard groups > 0, groups % rows == 0, scales.shape == [groups, 1] else {
      throw .wrongShape(tensor: module + ".weight._scale", expected: [(groups / rows + 1) * rows, 1], found: scales.shape)
    }
    guard stored.shape[0] == packing.height else {
      throw .wrongShape(tensor: module + ".weight._data._data", expected: [packing.height, size], found: stored.shape)
    }
    let shifts = try source.tensor(module + ".weight._shift")
    guard shifts.shape == scales.shape else {
      throw .wrongShape(tensor: module + ".weight._shift", expected: scales.shape, found: shifts.shape)
    }
    let isReal = StoredTensors.floats.contains(shifts.dtype)
    guard isReal || shifts.dtype == .int8 || shifts.dtype == .uint8 else {
      throw .unusableType(tensor: module + ".weight._shift", dtype: shifts.dtype.rawValue, use: "shifts")
    }
    let scheme = QuantizationScheme(
      bits: bits, granularity: groups == rows ? .channel : .group(size), zeroPoint: isReal ? .real : .integer, scaleType: scales.dtype)
    let zeros = isReal ? shifts.floats().map { -$0 } : shifts.integers(UInt8.self).map { Float($0) }
    guard isReal || zeros.allSatisfy({ $0 <= scheme.top }) else {
      throw .unusableType(tensor: module + ".weight._shift", dtype: shifts.dtype.rawValue, use: "zero points of \(bits) bits")
    }
    func matrix(_ values: [Float]) -> Matrix { Matrix(rows: rows, columns: groups / rows, elements: values) }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: groups / rows * size, codes: packing.codes(0..<groups * size, in: stored),
      scales: matrix(scales.floats()), zeroPoints: matrix(zeros))
  }
}
