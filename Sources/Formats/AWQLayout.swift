import CheckpointIO
import Models
import Tensors

/// The tensors of one linear in an AWQ checkpoint.
///
/// `gemm`: `qweight` [inputs, outputs / 8], `qzeros` [groups, outputs / 8], `scales` [groups, outputs]; a word holds 8 outputs in the
/// order 0 2 4 6 1 3 5 7. `gemv`: `qweight` [outputs, inputs / 8], `qzeros` [outputs, words], `scales` [outputs, 8 · words], in order and
/// padded with zeros.
enum AWQLayout {
  /// The output that the code at each place of a word belongs to, and the inverse.
  private static let order = [0, 2, 4, 6, 1, 3, 5, 7]
  private static let places = [0, 4, 1, 5, 2, 6, 3, 7]

  /// Why the layout has no room for a weight; `nil` where it has.
  static func refusal(of weight: QuantizedMatrix) -> String? {
    let scheme = weight.scheme
    guard scheme.grid == .integer, scheme.bits == 4 else { return "it holds integers of 4 bits, not \(scheme)" }
    guard scheme.zeroPoint != .real else { return "its zero points are codes, not biases; quantize with zero_point: integer" }
    switch scheme.granularity {
    case .channel, .group: break
    case .tensor, .block: return "scales are needed for every row, and \(scheme) has fewer"
    }
    guard weight.columnGroups == nil else { return "its groups are scattered by activation order, which needs the gptq format" }
    guard weight.rows % 8 == 0 else { return "\(weight.rows) outputs are not a multiple of 8" }
    return nil
  }

  private static func pack(_ codes: [UInt8], rowLength: Int, shape: [Int]) -> Tensor {
    Tensor(dtype: .int32, shape: shape, integers: Kernel.pack(permuted(codes, order), rowLength: rowLength, bits: 4))
  }

  /// Every eight codes taken in the given order.
  private static func permuted(_ codes: [UInt8], _ order: [Int]) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: codes.count) { out, count in
      codes.withUnsafeBufferPointer { codes in
        order.withUnsafeBufferPointer { order in
          for start in stride(from: 0, to: codes.count, by: 8) {
            for place in 0..<8 { out[start + place] = codes[start + order[place]] }
          }
        }
      }
      count = codes.count
    }
  }

  static func encode(_ weight: QuantizedMatrix, scales: Tensor, module: String) -> [NamedTensor] {
    let (rows, columns, groups) = (weight.rows, weight.columns, weight.scales.columns)
    let codes = transposed(weight.codes, rows: rows, columns: columns)
    let zeros = transposed(weight.zeroCodes, rows: rows, columns: groups)
    return [
      NamedTensor(name: module + ".qweight", tensor: pack(codes, rowLength: rows, shape: [columns, rows / 8])),
      NamedTensor(name: module + ".qzeros", tensor: pack(zeros, rowLength: rows, shape: [groups, rows / 8])),
      NamedTensor(name: module + ".scales", tensor: scales),
    ]
  }

  static func decode(
    _ module: String, _ source: any TensorSource, groupSize: Int?, _ version: AWQConfiguration.Version
  ) throws(CheckpointError) -> QuantizedMatrix {
    let packed = try StoredTensors.matrix(module + ".qweight", source, [.int32])
    let isGemm = version == .gemm
    let (rows, columns) = isGemm ? (packed.shape[1] * 8, packed.shape[0]) : (packed.shape[0], packed.shape[1] * 8)
    let size = groupSize ?? columns
    guard columns % size == 0 else {
      throw .unsupportedOption(
        option: "quantization_config.group_size", value: "\(size)", reason: "it does not divide the \(columns) inputs of \(module)")
    }
    let groups = columns / size
    let (codes, zeros, scales) =
      isGemm
      ? try gemm(module, source, packed, rows: rows, columns: columns, groups: groups)
      : try gemv(module, source, packed, rows: rows, columns: columns, groups: groups)
    // The format stores zero points for symmetric weights too.
    let isSymmetric = zeros.allSatisfy { $0 == 8 }
    let scheme = QuantizationScheme(
      bits: 4, granularity: groupSize.map { .group($0) } ?? .channel, symmetric: isSymmetric, scaleType: scales.dtype)
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes, scales: scales.matrix,
      zeroPoints: isSymmetric ? nil : Matrix(rows: rows, columns: groups, elements: zeros.map { Float($0) }))
  }

  /// Codes [outputs × inputs], zero points and scales [outputs × groups].
  private typealias Parts = (codes: [UInt8], zeros: [UInt8], scales: (matrix: Matrix, dtype: DType))

  private static func gemm(
    _ module: String, _ source: any TensorSource, _ packed: Tensor, rows: Int, columns: Int, groups: Int
  ) throws(CheckpointError) -> Parts {
    let scales = try StoredTensors.matrix(module + ".scales", source, StoredTensors.floats, rows: groups, columns: rows)
    let packedZeros = try StoredTensors.matrix(module + ".qzeros", source, [.int32], rows: groups, columns: rows / 8)
    func unpack(_ tensor: Tensor, _ height: Int) -> [UInt8] {
      transposed(
        permuted(Kernel.unpack(tensor.integers(UInt32.self), rowLength: rows, bits: 4), places), rows: height, columns: rows)
    }
    return (unpack(packed, columns), unpack(packedZeros, groups), (StoredTensors.transposedFloats(scales), scales.dtype))
  }

  private static func gemv(
    _ module: String, _ source: any TensorSource, _ packed: Tensor, rows: Int, columns: Int, groups: Int
  ) throws(CheckpointError) -> Parts {
    let packedZeros = try StoredTensors.matrix(module + ".qzeros", source, [.int32], rows: rows)
    let width = packedZeros.shape[1] * 8
    guard width >= groups else {
      throw .wrongShape(tensor: module + ".qzeros", expected: [rows, (groups + 7) / 8], found: packedZeros.shape)
    }
    let scales = try StoredTensors.matrix(module + ".scales", source, StoredTensors.floats, rows: rows, columns: width)
    let (allZeros, allScales) = (Kernel.unpack(packedZeros.integers(UInt32.self), rowLength: width, bits: 4), scales.floats())
    func used<Element>(_ elements: [Element]) -> [Element] {
      (0..<rows).flatMap { elements[$0 * width..<$0 * width + groups] }
    }
    return (
      Kernel.unpack(packed.integers(UInt32.self), rowLength: columns, bits: 4), used(allZeros),
      (Matrix(rows: rows, columns: groups, elements: used(allScales)), scales.dtype)
    )
  }
}
