import CheckpointIO
import Foundation
import Models
import StrictJSON
import Tensors

/// How compressed-tensors has stored sparse weights: what is not zero, and a bit for every weight that says whether it is among that.
///
/// Bit j of byte k of a row, the lowest first, belongs to column 8k + j. Read and not written: the library's later versions have dropped
/// these layouts, and runtimes with them. The raw values are its names.
enum SparseBitmaskLayout: String, Sendable, CaseIterable {
  /// Two of every four columns, some of which may be zero: rows of one length.
  case twoOfFour = "sparse-24-bitmask"
  /// Any zeros: the values of all rows one after the other.
  case unstructured = "sparse-bitmask"

  /// The layout of a checkpoint, if it has one of these.
  ///
  /// - Throws: `CheckpointError` for one whose weights are quantized besides.
  init?(_ quantization: JSON) throws(CheckpointError) {
    guard let name = quantization["sparsity_config"]?["format"]?.string, let layout = Self(rawValue: name) else { return nil }
    if let groups = quantization["config_groups"]?.members, !groups.isEmpty {
      throw .unsupportedOption(
        option: "quantization_config.sparsity_config.format", value: name,
        reason: "weights that are quantized and sparse at once are read only where the zeros are stored")
    }
    self = layout
  }

  private var prefix: String { self == .twoOfFour ? "" : ".weight" }

  var reader: WeightReader {
    WeightReader(
      components: ["compressed", "bitmask", "shape", "row_offsets"], parts: self == .twoOfFour ? [] : ["weight"],
      holds: { module, source in source.info(module + prefix + ".bitmask") != nil },
      weight: { module, source throws(CheckpointError) in StoredWeight(try decode(module, source)) })
  }

  /// The dense tensor.
  func decode(_ module: String, _ source: any TensorSource) throws(CheckpointError) -> Tensor {
    let path = module + prefix
    let shape = try integers(path + ".shape", source)
    guard shape.count == 2, shape.allSatisfy({ (1...Int(Int32.max)).contains($0) }) else {
      throw .wrongShape(tensor: path + ".shape", expected: [2], found: shape)
    }
    let (rows, columns) = (shape[0], shape[1])
    let mask = try source.tensor(path + ".bitmask")
    guard mask.dtype == .uint8 else { throw .unusableType(tensor: path + ".bitmask", dtype: mask.dtype.rawValue, use: "U8") }
    let width = (columns + 7) / 8
    guard mask.shape == [rows, width] else { throw .wrongShape(tensor: path + ".bitmask", expected: [rows, width], found: mask.shape) }
    let values = try source.tensor(path + ".compressed")
    guard values.dtype.isReadableAsFloat, values.dtype.bitCount % 8 == 0 else {
      throw .unusableType(tensor: path + ".compressed", dtype: values.dtype.rawValue, use: "floats")
    }
    let bits = mask.integers(UInt8.self)
    let counts = (0..<rows).map { row in (0..<columns).count { bits[row * width + $0 / 8] >> UInt8($0 % 8) & 1 == 1 } }
    let kept = counts.reduce(0, +)
    let expected = self == .twoOfFour ? [rows, columns / 2] : [kept]
    guard values.shape == expected, self == .unstructured || counts.allSatisfy({ $0 == columns / 2 }) else {
      throw .wrongShape(tensor: path + ".compressed", expected: expected, found: values.shape)
    }
    if self == .unstructured {
      var (starts, next) = ([Int](), 0)
      for count in counts {
        starts.append(next)
        next += count
      }
      let offsets = try integers(path + ".row_offsets", source)
      guard offsets == starts else { throw .wrongShape(tensor: path + ".row_offsets", expected: starts, found: offsets) }
    }
    let size = values.dtype.bitCount / 8
    var dense = Data(count: rows * columns * size)
    dense.withUnsafeMutableBytes { (out: UnsafeMutableRawBufferPointer) in
      values.bytes.withUnsafeBytes { (from: UnsafeRawBufferPointer) in
        var next = 0
        for row in 0..<rows {
          for column in 0..<columns where bits[row * width + column / 8] >> UInt8(column % 8) & 1 == 1 {
            for byte in 0..<size { out[(row * columns + column) * size + byte] = from[next + byte] }
            next += size
          }
        }
      }
    }
    return Tensor(dtype: values.dtype, shape: [rows, columns], bytes: dense)
  }

  private func integers(_ name: String, _ source: any TensorSource) throws(CheckpointError) -> [Int] {
    let tensor = try source.tensor(name)
    guard tensor.dtype == .int64 else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "I64") }
    return tensor.integers(Int64.self).map { Int($0) }
  }
}
