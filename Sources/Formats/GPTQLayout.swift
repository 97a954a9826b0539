import CheckpointIO
import Models
import Tensors

/// The tensors of one linear in a GPTQ checkpoint: everything lies input dimension first.
///
/// `qweight` [inputs · bits / 32, outputs], codes packed along the inputs; `qzeros` [groups, outputs · bits / 32], packed along the
/// outputs; `scales` [groups, outputs]; `g_idx` [inputs], the group of each input. 32 codes are a little-endian bit string, except in the
/// planar packing, where their low bits come first and the others after.
enum GPTQLayout {
  /// How `qzeros` are read, and which packing the codes have.
  struct Zeros: Sendable {
    var version: GPTQFormat.Version
    /// How many bits codes have that lie in planes.
    var planarBits: Set<Int>
  }

  /// Why the layout has no room for a weight; `nil` where it has.
  static func refusal(of weight: QuantizedMatrix) -> String? {
    let scheme = weight.scheme
    guard scheme.grid == .integer else { return "\(scheme) weights are not integers" }
    guard [2, 3, 4, 8].contains(scheme.bits) else { return "it holds 2, 3, 4 and 8 bits, not \(scheme.bits)" }
    guard scheme.zeroPoint != .real else { return "its zero points are codes, not biases; quantize with zero_point: integer" }
    switch scheme.granularity {
    case .channel, .group: break
    case .tensor, .block: return "scales are needed for every row, and \(scheme) has fewer"
    }
    guard weight.rows % 32 == 0, weight.columns % 32 == 0 else {
      return "both sides of \(weight.rows)×\(weight.columns) have to be multiples of 32"
    }
    return nil
  }

  static func encode(
    _ weight: QuantizedMatrix, zeros: [UInt8], scales: Tensor, _ version: GPTQFormat.Version, module: String
  ) -> [NamedTensor] {
    let (rows, columns, bits) = (weight.rows, weight.columns, weight.scheme.bits)
    let height = columns * bits / 32
    let words = transposed(Kernel.pack(weight.codes, rowLength: columns, bits: bits), rows: rows, columns: height)
    let less: UInt8 = version == .v1 ? 1 : 0
    let byGroup = transposed(zeros, rows: rows, columns: weight.scales.columns).map { $0 - less }
    let groups = weight.columnGroups ?? (0..<columns).map { Int32($0 / weight.groupSize) }
    return [
      NamedTensor(name: module + ".qweight", tensor: Tensor(dtype: .int32, shape: [height, rows], integers: words)),
      NamedTensor(
        name: module + ".qzeros",
        tensor: Tensor(
          dtype: .int32, shape: [weight.scales.columns, rows * bits / 32], integers: Kernel.pack(byGroup, rowLength: rows, bits: bits))),
      NamedTensor(name: module + ".scales", tensor: scales),
      NamedTensor(name: module + ".g_idx", tensor: Tensor(dtype: .int32, shape: [columns], integers: groups)),
    ]
  }

  static func decode(
    _ module: String, _ source: any TensorSource, _ numbers: GPTQConfiguration.Numbers, _ zeros: Zeros
  ) throws(CheckpointError) -> QuantizedMatrix {
    let bits = numbers.bits
    let packed = try StoredTensors.matrix(module + ".qweight", source, [.int32])
    let rows = packed.shape[1]
    // What does not straddle words fills them; the others come in blocks of 32.
    let wordsPerBlock = 32 % bits == 0 ? 1 : bits
    guard packed.shape[0] % wordsPerBlock == 0, rows % (32 % bits == 0 ? 32 / bits : 32) == 0 else {
      throw .wrongShape(
        tensor: module + ".qweight", expected: [(packed.shape[0] / wordsPerBlock + 1) * wordsPerBlock, rows], found: packed.shape)
    }
    let columns = packed.shape[0] * 32 / bits
    let size = numbers.groupSize ?? columns
    guard columns % size == 0 else {
      throw .unsupportedOption(
        option: "quantization_config.group_size", value: "\(size)", reason: "it does not divide the \(columns) inputs of \(module)")
    }
    let groups = columns / size
    let stored = try StoredTensors.matrix(module + ".scales", source, StoredTensors.floats, rows: groups, columns: rows)
    let packedZeros = try StoredTensors.matrix(module + ".qzeros", source, [.int32], rows: groups, columns: rows * bits / 32)
    let isPlanar = zeros.planarBits.contains(bits)
    func unpack(_ words: [UInt32], _ count: Int) -> [UInt8] {
      isPlanar ? planes(words, bits: bits) : Kernel.unpack(words, rowLength: count, bits: bits)
    }
    let codes = unpack(transposed(packed.integers(UInt32.self), rows: packed.shape[0], columns: rows), columns)
    var fields = transposed(unpack(packedZeros.integers(UInt32.self), rows), rows: groups, columns: rows)
    if zeros.version == .v1 {
      let mask = UInt8((1 << bits) - 1)
      fields = fields.map { ($0 &+ 1) & mask }
    }
    var scheme = QuantizationScheme(
      bits: bits, granularity: numbers.groupSize.map { .group($0) } ?? .channel, symmetric: numbers.symmetric, scaleType: stored.dtype)
    // The zero points are what counts, whatever the configuration says of them.
    if fields.contains(where: { Float($0) != scheme.middle }) { scheme.zeroPoint = .integer }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes, scales: StoredTensors.transposedFloats(stored),
      zeroPoints: scheme.symmetric ? nil : Matrix(rows: rows, columns: groups, elements: fields.map { Float($0) }),
      columnGroups: try columnGroups(module + ".g_idx", source, columns: columns, size: size))
  }

  /// The group of every column; `nil` where groups are runs of columns.
  private static func columnGroups(
    _ name: String, _ source: any TensorSource, columns: Int, size: Int
  ) throws(CheckpointError) -> [Int32]? {
    // Old files may leave it out.
    guard source.info(name) != nil else { return nil }
    let tensor = try source.tensor(name)
    guard tensor.dtype == .int32 else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "I32") }
    guard tensor.shape == [columns] else { throw .wrongShape(tensor: name, expected: [columns], found: tensor.shape) }
    let groups = tensor.integers(Int32.self)
    if let stranger = groups.first(where: { !(0..<columns / size).contains(Int($0)) }) {
      throw .unsupportedOption(option: name, value: "\(stranger)", reason: "there are \(columns / size) groups")
    }
    return groups.enumerated().allSatisfy { Int($1) == $0 / size } ? nil : groups
  }

  /// Codes whose low bits fill the first words of each 32 codes and whose high bits the rest, each plane packed for itself.
  private static func planes(_ words: [UInt32], bits: Int) -> [UInt8] {
    let widths = bits == 3 ? [2, 1] : [4] + [[], [1], [2], [2, 1]][bits - 4]
    var codes = [UInt8](repeating: 0, count: words.count / bits * 32)
    for block in 0..<words.count / bits {
      var (first, shift) = (block * bits, 0)
      for width in widths {
        let plane = Kernel.unpack(Array(words[first..<first + width]), rowLength: 32, bits: width)
        for index in 0..<32 { codes[block * 32 + index] |= plane[index] << UInt8(shift) }
        (first, shift) = (first + width, shift + width)
      }
    }
    return codes
  }
}
