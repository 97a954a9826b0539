import CheckpointIO
import Foundation
import Models
import StrictJSON
import Tensors

/// How the tensors of one module of bitsandbytes become a weight; see `BitsAndBytesFormat`.
enum BitsAndBytesLayout {
  private static let kinds = ["nf4", "fp4"]

  static let components: Set<String> = Set(
    ["weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map", "SCB", "weight_format"]
      + kinds.map { "weight.quant_state.bitsandbytes__\($0)" })

  static func holds(_ module: String, _ source: any TensorSource) -> Bool {
    if let info = source.info(module + ".weight"), info.dtype == .uint8 || info.dtype == .int8 { return true }
    // Bytes may be declared as numbers of any type (`bnb_4bit_quant_storage`).
    return components.contains { $0 != "weight" && source.info("\(module).\($0)") != nil }
  }

  // MARK: 8 bits

  /// Rows of whole numbers, 127 of which are the row's `SCB`.
  static func integers(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> QuantizedMatrix {
    let stored = try StoredTensors.matrix(module + ".weight", source, [.int8])
    let (rows, columns) = (stored.shape[0], stored.shape[1])
    let arrangement = module + ".weight_format"
    if source.info(arrangement) != nil, try source.tensor(arrangement).bytes.contains(where: { $0 != 0 }) {
      throw .unsupportedOption(
        option: arrangement, value: "\(try source.tensor(arrangement).bytes.first ?? 0)",
        reason: "only rows (0) are read; what is arranged for one kind of GPU is saved anew by a current bitsandbytes")
    }
    let largest = try vector(module + ".SCB", source, count: rows)
    let scheme = QuantizationScheme(bits: 8, granularity: .channel, scaleType: .float32)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: stored.bytes.map { $0 ^ 0x80 },
      scales: Matrix(rows: rows, columns: 1, elements: largest.map { $0 * Self.share }), zeroPoints: nil)
  }

  /// 1 / 127 as the library spells it.
  private static let share: Float = 7.874015718698502e-3

  // MARK: 4 bits

  static func codes(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> ForeignWeight {
    let state = try State(module, source)
    let packed = try source.tensor(module + ".weight")
    let count = state.rows * state.columns
    guard packed.bytes.count >= (count + 1) / 2, packed.bytes.count < (count + 1) / 2 + packed.dtype.bitCount / 8 else {
      throw .wrongShape(tensor: module + ".weight", expected: [(count + 1) / 2, 1], found: packed.shape)
    }
    let map = try vector(module + ".weight.quant_map", source, count: 16)
    let scales = try scales(module, source, state, count: (count + state.blockSize - 1) / state.blockSize)
    var tensors: [Tensor] = []
    for name in components where source.info("\(module).\(name)") != nil { tensors.append(try source.tensor("\(module).\(name)")) }
    let (columns, blockSize, type) = (state.columns, state.blockSize, state.type)
    return ForeignWeight(form: "\(state.kind) b\(blockSize)", rows: state.rows, columns: columns, tensors: tensors) { rows in
      let first = rows.lowerBound * columns
      let values = packed.bytes.withUnsafeBytes { bytes in
        [Float](unsafeUninitializedCapacity: rows.count * columns) { out, initialized in
          for index in 0..<rows.count * columns {
            let place = first + index
            let pair = bytes[place >> 1]
            out[index] = map[Int(place & 1 == 0 ? pair >> 4 : pair & 15)] * scales[place / blockSize]
          }
          initialized = rows.count * columns
        }
      }
      // The library computes in single precision and hands out the type that the weight had before.
      return type == .float32 ? values : Tensor(values, shape: [values.count], dtype: type).floats()
    }
  }

  /// The scales of all blocks, looked up where they are codes.
  private static func scales(
    _ module: String, _ source: any TensorSource, _ state: State, count: Int
  ) throws(CheckpointError) -> [Float] {
    let name = module + ".weight.absmax"
    guard let nested = state.nested else { return try vector(name, source, count: count) }
    let codes = try source.tensor(name)
    guard codes.dtype == .uint8 else { throw .unusableType(tensor: name, dtype: codes.dtype.rawValue, use: "codes of scales") }
    guard codes.elementCount == count else { throw .wrongShape(tensor: name, expected: [count], found: codes.shape) }
    let map = try vector(module + ".weight.nested_quant_map", source, count: 256)
    let factors = try vector(module + ".weight.nested_absmax", source, count: (count + nested.blockSize - 1) / nested.blockSize)
    return codes.bytes.enumerated().map { map[Int($1)] * factors[$0 / nested.blockSize] + nested.offset }
  }

  private static func vector(_ name: String, _ source: any TensorSource, count: Int) throws(CheckpointError) -> [Float] {
    let tensor = try source.tensor(name)
    guard tensor.dtype.isReadableAsFloat else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "numbers") }
    guard tensor.elementCount == count else { throw .wrongShape(tensor: name, expected: [count], found: tensor.shape) }
    guard !tensor.holdsNonfinite else { throw .nonfiniteWeight(tensor: name) }
    return tensor.floats()
  }

  /// What the JSON beside a weight of 4 bits says of it.
  private struct State {
    let kind: String
    let rows: Int
    let columns: Int
    let blockSize: Int
    /// What its numbers are rounded to.
    let type: DType
    /// Of scales that are codes.
    let nested: (blockSize: Int, offset: Float)?

    init(_ module: String, _ source: any TensorSource) throws(CheckpointError) {
      let names = kinds.map { "\(module).weight.quant_state.bitsandbytes__\($0)" }
      guard let found = zip(kinds, names).first(where: { source.info($0.1) != nil }) else { throw .missingTensor(name: names[0]) }
      let (kind, name) = found
      let bytes = try source.tensor(name).bytes
      guard let json = try? JSON(parsing: bytes) else {
        throw .unsupportedOption(option: name, value: "\(bytes.count) bytes", reason: "they are no JSON")
      }
      func refusal(_ key: String, _ reason: String) -> CheckpointError {
        .unsupportedOption(option: "\(name).\(key)", value: json[key]?.text() ?? "missing", reason: reason)
      }
      guard json["quant_type"]?.string == kind else { throw refusal("quant_type", "\(kind) is what the tensor's name says") }
      let shape = (json["shape"]?.elements ?? []).compactMap(\.integer)
      guard shape.count == 2, shape.allSatisfy({ (1...1 << 30).contains($0) }) else { throw refusal("shape", "two lengths are needed") }
      guard let size = json["blocksize"]?.integer, (1...1 << 20).contains(size) else {
        throw refusal("blocksize", "a positive number is needed")
      }
      guard let type = ["float32": DType.float32, "float16": .float16, "bfloat16": .bfloat16][json["dtype"]?.string ?? ""] else {
        throw refusal("dtype", "float32, float16 and bfloat16 are read")
      }
      (self.kind, rows, columns, blockSize, self.type) = (kind, shape[0], shape[1], size, type)
      guard source.info(module + ".weight.nested_absmax") != nil || json["nested_blocksize"] != nil else {
        nested = nil
        return
      }
      guard let nestedSize = json["nested_blocksize"]?.integer, (1...1 << 20).contains(nestedSize) else {
        throw refusal("nested_blocksize", "a positive number is needed")
      }
      guard let offset = json["nested_offset"]?.double, offset.isFinite else { throw refusal("nested_offset", "a number is needed") }
      nested = (nestedSize, Float(offset))
    }
  }
}
