import CheckpointIO
import Foundation
import Models
import Tensors

/// The tensors of one linear or embedding in an MLX checkpoint.
///
/// `weight` [outputs, inputs · bits / 32], every row a little-endian bit string; `scales` and, in the affine mode, `biases`
/// [outputs, groups]. An affine weight is code · scale + bias.
enum MLXLayout {
  static func noRoom(for scheme: QuantizationScheme) -> String {
    scheme.grid == .integer
      ? "it holds 1, 2, 3, 4, 5, 6 and 8 bits in groups of 32, 64 and 128, not \(scheme)"
      : "of floats it holds mxfp4, mxfp8 and nvfp4, not \(scheme)"
  }

  static func encode(_ weight: QuantizedMatrix, module: String) throws(FormatError) -> [NamedTensor] {
    func refusal(_ reason: String) -> FormatError { .cannotStore(module: module, format: MLXFormat.name, reason: reason) }
    let scheme = weight.scheme
    guard let numbers = MLXConfiguration.Numbers(storing: scheme) else { throw refusal(noRoom(for: scheme)) }
    guard weight.columnGroups == nil else { throw refusal("its groups are scattered by activation order, which needs the gptq format") }
    guard weight.columns * scheme.bits % 32 == 0 else {
      throw refusal("rows of \(weight.columns) codes of \(scheme.bits) bits do not fill words of 32")
    }
    let shape = [weight.rows, weight.scales.columns]
    let packed = Kernel.pack(weight.codes, rowLength: weight.columns, bits: scheme.bits)
    let codes = NamedTensor(
      name: module + ".weight",
      tensor: Tensor(dtype: .uint32, shape: [weight.rows, weight.columns * scheme.bits / 32], integers: packed))
    func scales(_ tensor: Tensor) -> NamedTensor { NamedTensor(name: module + ".scales", tensor: tensor) }
    switch numbers.mode {
    case .mxfp4, .mxfp8:
      let exponents = weight.scales.elements.map { PowerOfTwoScale.code(of: $0) }
      return [codes, scales(Tensor(dtype: .uint8, shape: shape, bytes: Data(exponents)))]
    case .nvfp4:
      guard weight.globalScale == 1 else {
        throw refusal("there is no place for the scale of the whole matrix (\(weight.globalScale ?? 1)); mxfp4 needs none")
      }
      return [codes, scales(Tensor(dtype: .uint8, shape: shape, bytes: Data(MiniFloat.e4m3.encode(weight.scales.elements))))]
    case .affine:
      guard StoredTensors.floats.contains(scheme.scaleType) else { throw refusal("scales of \(scheme.scaleType.rawValue)") }
      guard let biases = biases(of: weight) else {
        throw refusal(
          "it adds a bias to the scaled code, and −scale · zero point does not fit \(scheme.scaleType.rawValue) everywhere; "
            + "quantize with symmetric: false and zero_point: real")
      }
      return [
        codes, scales(Tensor(weight.scales.elements, shape: shape, dtype: scheme.scaleType)),
        NamedTensor(name: module + ".biases", tensor: Tensor(biases, shape: shape, dtype: scheme.scaleType)),
      ]
    }
  }

  /// What is added to the scaled codes; `nil` where that would not give the same numbers.
  private static func biases(of weight: QuantizedMatrix) -> [Float]? {
    let scheme = weight.scheme
    if scheme.zeroPoint == .real { return weight.zeroPoints!.elements }
    var biases: [Float] = []
    biases.reserveCapacity(weight.scales.elements.count)
    for (index, scale) in weight.scales.elements.enumerated() {
      let bias = -scale * (weight.zeroPoints?.elements[index] ?? scheme.middle)
      guard isExact(scale, bits: scheme.bits), scheme.scaleType.rounded(bias) == bias else { return nil }
      biases.append(bias == 0 ? 0 : bias)
    }
    return biases
  }

  /// Whether scale · (code − zero point) and scale · code + bias are the same number for all codes: nothing is rounded on either way
  /// where the scale leaves the last bits of its mantissa to the code.
  private static func isExact(_ scale: Float, bits: Int) -> Bool {
    scale == 0 || scale.isNormal && scale.bitPattern & (1 << UInt32(bits + 1) - 1) == 0
  }

  // MARK: Reading

  static func decode(
    _ module: String, _ source: any TensorSource, _ numbers: MLXConfiguration.Numbers
  ) throws(CheckpointError) -> QuantizedMatrix {
    let isAffine = numbers.mode == .affine
    let stored = try StoredTensors.matrix(module + ".scales", source, isAffine ? StoredTensors.floats : [.uint8])
    let (rows, groups) = (stored.shape[0], stored.shape[1])
    let (columns, overflow) = groups.multipliedReportingOverflow(by: numbers.groupSize)
    guard !overflow, columns <= Int(Int32.max) else {
      throw .unsupportedOption(option: "quantization.group_size", value: "\(numbers.groupSize)", reason: "\(module) has no such width")
    }
    guard columns * numbers.bits % 32 == 0 else {
      throw .wrongShape(tensor: module + ".scales", expected: [rows, groups + 1], found: stored.shape)
    }
    let packed = try StoredTensors.matrix(module + ".weight", source, [.uint32], rows: rows, columns: columns * numbers.bits / 32)
    let codes = Kernel.unpack(packed.integers(UInt32.self), rowLength: columns, bits: numbers.bits)
    func matrix(_ elements: [Float]) -> Matrix { Matrix(rows: rows, columns: groups, elements: elements) }
    switch numbers.mode {
    case .mxfp4, .mxfp8:
      return QuantizedMatrix(
        scheme: .mx(bits: numbers.bits), rows: rows, columns: columns, codes: codes,
        scales: matrix(stored.bytes.map { PowerOfTwoScale.value($0) }), zeroPoints: nil)
    case .nvfp4:
      return QuantizedMatrix(
        scheme: .nvfp4, rows: rows, columns: columns, codes: codes,
        scales: matrix(stored.bytes.map { MiniFloat.e4m3.values[Int($0)] }), zeroPoints: nil, globalScale: 1)
    case .affine:
      let biases = try StoredTensors.matrix(module + ".biases", source, [stored.dtype], rows: rows, columns: groups).floats()
      let scales = stored.floats()
      var scheme = QuantizationScheme(
        bits: numbers.bits, granularity: .group(numbers.groupSize), zeroPoint: .real, scaleType: stored.dtype)
      var zeros = biases
      if let whole = zeroPoints(scales, biases, scheme) {
        zeros = whole
        scheme.zeroPoint = whole.allSatisfy { $0 == scheme.middle } ? .none : .integer
      }
      return QuantizedMatrix(
        scheme: scheme, rows: rows, columns: columns, codes: codes, scales: matrix(scales),
        zeroPoints: scheme.symmetric ? nil : matrix(zeros))
    }
  }

  /// The codes of zero, if zero is a point of every group's grid.
  private static func zeroPoints(_ scales: [Float], _ biases: [Float], _ scheme: QuantizationScheme) -> [Float]? {
    var zeros: [Float] = []
    zeros.reserveCapacity(scales.count)
    for (scale, bias) in zip(scales, biases) {
      let zero = -bias / scale
      guard scale != 0, isExact(scale, bits: scheme.bits), (0...scheme.top).contains(zero), zero == zero.rounded(), -scale * zero == bias
      else { return nil }
      zeros.append(zero == 0 ? 0 : zero)
    }
    return zeros
  }
}
