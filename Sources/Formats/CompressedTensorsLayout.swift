import CheckpointIO
import Foundation
import Models
import Tensors

/// Which tensors store a quantized weight in compressed-tensors, and how; raw values are the library's names.
enum CompressedTensorsLayout: String, Sendable {
  /// Signed codes in offset binary, a row a little-endian bit string of 32-bit words; zero points packed along the rows.
  case packedIntegers = "pack-quantized"
  /// Signed codes, a byte each, whatever their bits.
  case integers = "int-quantized"
  /// E4M3 bytes for a quantized input.
  case floats = "float-quantized"
  /// E4M3 bytes for an input that stays as it is.
  case floatWeights = "naive-quantized"
  /// E2M1 nibbles, E4M3 scales, and what these are divided by.
  case nvfp4 = "nvfp4-pack-quantized"
  /// E2M1 nibbles with powers of two.
  case mxfp4 = "mxfp4-pack-quantized"
  /// E4M3 bytes with powers of two.
  case mxfp8 = "mxfp8-quantized"

  /// Last components of the names of all these tensors.
  static let components: Set<String> = [
    "weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_global_scale", "weight_g_idx", "input_scale",
    "input_global_scale", "input_zero_point",
  ]

  /// `nil` where the library has no layout for it.
  init?(weights scheme: QuantizationScheme, input: InputQuantization?) {
    switch (scheme.grid, scheme.scaleType) {
    case (_, _) where scheme.zeroPoint == .real: return nil
    case (.integer, .float8E4M3), (.integer, .float8E8M0): return nil
    case (.integer, _): self = input == nil ? .packedIntegers : .integers
    case (.float, .float8E4M3):
      guard scheme == .nvfp4 else { return nil }
      self = .nvfp4
    case (.float, .float8E8M0):
      guard scheme == .mx(bits: scheme.bits) else { return nil }
      self = scheme.bits == 4 ? .mxfp4 : .mxfp8
    case (.float, _):
      guard scheme.bits == 8 else { return nil }
      self = input == nil ? .floatWeights : .floats
    }
  }

  func encode(_ weight: QuantizedMatrix, module: String) -> [NamedTensor] {
    let (rows, columns) = (weight.rows, weight.columns)
    func named(_ name: String, _ tensor: Tensor) -> NamedTensor { NamedTensor(name: module + name, tensor: tensor) }
    let bytes: Tensor
    switch self {
    case .packedIntegers:
      let words = Kernel.packedWords(weight.codes, rowLength: columns, bits: weight.scheme.bits)
      let packed = Tensor(dtype: .int32, shape: [rows, words / max(rows, 1)]) {
        Kernel.pack(weight.codes, rowLength: columns, bits: weight.scheme.bits, into: $0.bindMemory(to: UInt32.self))
      }
      var tensors = [
        named(".weight_packed", packed),
        named(".weight_scale", scales(of: weight)),
        named(".weight_shape", Tensor(dtype: .int64, shape: [2], integers: [Int64(rows), Int64(columns)])),
      ]
      if let zeros = weight.zeroPoints { tensors.append(named(".weight_zero_point", packedZeroPoints(zeros, bits: weight.scheme.bits))) }
      return tensors
    case .integers:
      let middle = UInt8(weight.scheme.middle)
      bytes = Tensor(dtype: .int8, shape: [rows, columns], bytes: Data(weight.codes.map { $0 &- middle }))
      var tensors = [named(".weight", bytes), named(".weight_scale", scales(of: weight))]
      if let zeros = weight.zeroPoints {
        tensors.append(
          named(
            ".weight_zero_point",
            Tensor(dtype: .int8, shape: scaleShape(of: weight), integers: zeros.elements.map { Int8($0 - weight.scheme.middle) })))
      }
      return tensors
    case .floats, .floatWeights, .mxfp8:
      bytes = Tensor(dtype: .float8E4M3, shape: [rows, columns], bytes: Data(weight.codes))
      return [named(".weight", bytes), named(".weight_scale", scales(of: weight))]
    case .nvfp4, .mxfp4:
      bytes = Tensor(dtype: .uint8, shape: [rows, columns / 2], bytes: nibbles(weight.codes))
      let global = weight.globalScale.map { named(".weight_global_scale", Tensor([$0], shape: [1], dtype: .float32)) }
      return [named(".weight_packed", bytes), named(".weight_scale", scales(of: weight))] + (global.map { [$0] } ?? [])
    }
  }

  private func scaleShape(of weight: QuantizedMatrix) -> [Int] {
    weight.scheme.granularity == .tensor ? [1] : [weight.scales.rows, weight.scales.columns]
  }

  private func scales(of weight: QuantizedMatrix) -> Tensor {
    let shape = scaleShape(of: weight)
    switch weight.scheme.scaleType {
    case .float8E8M0:
      return Tensor(dtype: .uint8, shape: shape, bytes: Data(weight.scales.elements.map { PowerOfTwoScale.code(of: $0) }))
    case .float8E4M3: return Tensor(dtype: .float8E4M3, shape: shape, bytes: Data(MiniFloat.e4m3.encode(weight.scales.elements)))
    case let type: return Tensor(weight.scales.elements, shape: shape, dtype: type)
    }
  }

  /// Packed along the outputs, so the bit strings run down the columns.
  private func packedZeroPoints(_ zeros: Matrix, bits: Int) -> Tensor {
    let words = Kernel.pack(zeros.transposed().elements.map { UInt8($0) }, rowLength: zeros.rows, bits: bits)
    let height = (zeros.rows * bits + 31) / 32
    let byWord = (0..<height).flatMap { word in (0..<zeros.columns).map { words[$0 * height + word] } }
    return Tensor(dtype: .int32, shape: [height, zeros.columns], integers: byWord)
  }

  /// Two codes a byte, the first in the low half.
  private func nibbles(_ codes: [UInt8]) -> Data {
    var data = Data(count: codes.count / 2)
    data.withUnsafeMutableBytes { out in for index in out.indices { out[index] = codes[2 * index] | codes[2 * index + 1] << 4 } }
    return data
  }
}

// MARK: - Reading

extension CompressedTensorsLayout {
  /// - Parameter scheme: as the configuration gives it; the type of the scales is the tensor's.
  static func decode(_ module: String, _ source: any TensorSource, _ scheme: QuantizationScheme) throws(CheckpointError)
    -> QuantizedMatrix
  {
    var scheme = scheme
    let stored = try source.tensor(module + ".weight_scale")
    if [.bfloat16, .float16, .float32].contains(scheme.scaleType) { scheme.scaleType = stored.dtype }
    let isPacked = source.info(module + ".weight_packed") != nil
    let (rows, columns, codes) =
      scheme.grid == .float && isPacked
      ? try nibbles(module, source) : isPacked ? try packed(module, source, bits: scheme.bits) : try bytes(module, source, scheme)
    guard scheme.fits(columns: columns) else {
      throw .wrongShape(
        tensor: module + ".weight_scale", expected: [rows, columns / max(1, scheme.groupSize(columns: columns))], found: stored.shape)
    }
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    let scales = try matrix(stored, module + ".weight_scale", shape, scheme.scaleType)
    var zeros: Matrix?
    if !scheme.symmetric { zeros = try zeroPoints(module, source, scheme, rows: rows, shape) }
    let global = scheme.hasGlobalScale ? try CompressedTensorsFormat.number(module + ".weight_global_scale", source) : nil
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes, scales: scales, zeroPoints: zeros, globalScale: global)
  }

  private typealias Codes = (rows: Int, columns: Int, codes: [UInt8])

  private static func tensor(_ name: String, _ source: any TensorSource, _ type: DType) throws(CheckpointError) -> Tensor {
    let tensor = try source.tensor(name)
    guard tensor.dtype == type else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: type.rawValue) }
    return tensor
  }

  private static func packed(_ module: String, _ source: any TensorSource, bits: Int) throws(CheckpointError) -> Codes {
    let shape = try tensor(module + ".weight_shape", source, .int64).integers(Int64.self).map { Int($0) }
    let packed = try tensor(module + ".weight_packed", source, .int32)
    guard shape.count == 2, shape.allSatisfy({ (1...Int(Int32.max)).contains($0) }) else {
      throw .wrongShape(tensor: module + ".weight_packed", expected: shape, found: packed.shape)
    }
    let words = packed.integers(UInt32.self)
    if packed.shape == [shape[0], (shape[1] * bits + 31) / 32] {
      return (shape[0], shape[1], Kernel.unpack(words, rowLength: shape[1], bits: bits))
    }
    // Before version 0.18 no code crossed a word.
    let perWord = 32 / bits
    let width = (shape[1] + perWord - 1) / perWord
    guard packed.shape == [shape[0], width] else {
      throw .wrongShape(tensor: module + ".weight_packed", expected: shape, found: packed.shape)
    }
    let mask = UInt32(1 << bits - 1)
    let codes = (0..<shape[0]).flatMap { row in
      (0..<shape[1]).map { UInt8(words[row * width + $0 / perWord] >> UInt32($0 % perWord * bits) & mask) }
    }
    return (shape[0], shape[1], codes)
  }

  private static func nibbles(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> Codes {
    let packed = try tensor(module + ".weight_packed", source, .uint8)
    guard packed.shape.count == 2 else { throw .wrongShape(tensor: module + ".weight_packed", expected: [0, 0], found: packed.shape) }
    return (packed.shape[0], packed.shape[1] * 2, packed.bytes.flatMap { [$0 & 15, $0 >> 4] })
  }

  private static func bytes(_ module: String, _ source: any TensorSource, _ scheme: QuantizationScheme) throws(CheckpointError) -> Codes {
    let tensor = try tensor(module + ".weight", source, scheme.grid == .float ? .float8E4M3 : .int8)
    guard tensor.shape.count == 2 else { throw .wrongShape(tensor: module + ".weight", expected: [0, 0], found: tensor.shape) }
    let middle = UInt8(scheme.grid == .float ? 0 : scheme.middle)
    let codes = tensor.bytes.map { $0 &+ middle }
    guard scheme.grid == .float || codes.allSatisfy({ Float($0) <= scheme.top }) else {
      throw .unusableType(tensor: module + ".weight", dtype: "I8", use: "codes of \(scheme.bits) bits")
    }
    return (tensor.shape[0], tensor.shape[1], codes)
  }

  private static func matrix(
    _ tensor: Tensor, _ name: String, _ shape: (rows: Int, columns: Int), _ type: DType
  ) throws(CheckpointError) -> Matrix {
    // One scale may be a vector of one or a scalar; a column may come as a vector.
    guard tensor.elementCount == shape.rows * shape.columns,
      tensor.shape == [shape.rows, shape.columns] || shape.columns == 1 && tensor.shape.count <= 1
    else { throw .wrongShape(tensor: name, expected: [shape.rows, shape.columns], found: tensor.shape) }
    let values: [Float]
    switch (type, tensor.dtype) {
    case (.float8E8M0, .uint8), (.float8E8M0, .float8E8M0): values = tensor.bytes.map { PowerOfTwoScale.value($0) }
    case (.float8E4M3, .float8E4M3): values = tensor.bytes.map { MiniFloat.e4m3.values[Int($0)] }
    case (_, let stored) where stored.isReadableAsFloat && type != .float8E8M0 && type != .float8E4M3: values = tensor.floats()
    default: throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "scales of \(type.rawValue)")
    }
    return Matrix(rows: shape.rows, columns: shape.columns, elements: values)
  }

  private static func zeroPoints(
    _ module: String, _ source: any TensorSource, _ scheme: QuantizationScheme, rows: Int, _ shape: (rows: Int, columns: Int)
  ) throws(CheckpointError) -> Matrix {
    let name = module + ".weight_zero_point"
    if source.info(name)?.dtype == .int8 {
      let tensor = try source.tensor(name)
      guard tensor.elementCount == shape.rows * shape.columns else {
        throw .wrongShape(tensor: name, expected: [shape.rows, shape.columns], found: tensor.shape)
      }
      let values = tensor.integers(Int8.self).map { Float($0) + scheme.middle }
      guard values.allSatisfy({ (0...scheme.top).contains($0) }) else {
        throw .unusableType(tensor: name, dtype: "I8", use: "zero points of \(scheme.bits) bits")
      }
      return Matrix(rows: shape.rows, columns: shape.columns, elements: values)
    }
    let packed = try tensor(name, source, .int32)
    let height = (shape.rows * scheme.bits + 31) / 32
    guard packed.shape == [height, shape.columns] else {
      throw .wrongShape(tensor: name, expected: [height, shape.columns], found: packed.shape)
    }
    let words = packed.integers(UInt32.self)
    let byColumn = (0..<shape.columns).flatMap { group in (0..<height).map { words[$0 * shape.columns + group] } }
    let codes = Kernel.unpack(byColumn, rowLength: shape.rows, bits: scheme.bits)
    return Matrix(rows: shape.columns, columns: shape.rows, elements: codes.map { Float($0) }).transposed()
  }
}
