import CompressKit
import TestSupport

/// Bytes as hexadecimal digits; spaces are for the eye.
func bytes(_ hex: String) -> [UInt8] {
  let digits = Array(hex.filter { $0 != " " })
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0..<$0 + 2]), radix: 16)! }
}

extension QuantizedMatrix {
  /// Codes, scales and zero points that look random and are not; scales are numbers of the scheme's type.
  ///
  /// - Parameter zeros: the zero points to choose from, by default all.
  static func sample(
    _ scheme: QuantizationScheme, rows: Int, columns: Int, zeros: ClosedRange<UInt8>? = nil, globalScale: Float = 1,
    columnGroups: [Int32]? = nil
  ) -> QuantizedMatrix {
    var random = KeyedRandomness(seed: 2, key: "\(scheme) \(rows) \(columns)")
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    let count = shape.rows * shape.columns
    let top = UInt8((1 << scheme.bits) - 1)
    func matrix(_ element: () -> Float) -> Matrix {
      Matrix(rows: shape.rows, columns: shape.columns, elements: (0..<count).map { _ in element() })
    }
    let scales = matrix {
      switch scheme.scaleType {
      case .float8E8M0: PowerOfTwoScale.value(.random(in: 100...140, using: &random))
      case .float8E4M3: MiniFloat.e4m3.values[Int.random(in: 1...126, using: &random)]
      default: scheme.scaleType.rounded(.random(in: 0.01...0.2, using: &random))
      }
    }
    let zeroPoints = matrix {
      scheme.zeroPoint == .real
        ? scheme.scaleType.rounded(.random(in: -1...1, using: &random)) : Float(UInt8.random(in: zeros ?? 0...top, using: &random))
    }
    // E4M3 has two codes that are no number.
    let codes = (0..<rows * columns).map { _ in
      scheme.grid == .float && scheme.bits == 8
        ? UInt8.random(in: 0...126, using: &random) | (Bool.random(using: &random) ? 128 : 0) : UInt8.random(in: 0...top, using: &random)
    }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes, scales: scales, zeroPoints: scheme.symmetric ? nil : zeroPoints,
      globalScale: scheme.hasGlobalScale ? globalScale : nil, columnGroups: columnGroups)
  }
}

extension CheckpointFormat {
  /// The tensors of a module called `m`.
  func tensors(_ weight: any Weight, module: String = "m") throws(FormatError) -> [NamedTensor] {
    try encode(Linear(weight: weight, storageType: .bfloat16), module: module)
  }

  /// The weight of a module called `m`, out of what was written and what the configuration then says.
  func again(_ tensors: [NamedTensor], _ scheme: QuantizationScheme?, hasColumnGroups: Bool = false) throws -> (any Weight)? {
    let config = try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8)
    let json = try configuration(of: [StoredModule(name: "m", scheme: scheme, hasColumnGroups: hasColumnGroups)], in: config)
    guard let reader = try reader(for: try ModelConfig(text: json.text().utf8)) else { return nil }
    return try reader.weight("m", MemoryTensorSource(tensors))
  }

  /// A reader for a configuration that a test spells.
  func read(_ json: String, under key: String = "quantization_config") throws(CheckpointError) -> WeightReader? {
    try reader(for: try ModelConfig(text: "{\"model_type\":\"llama\",\"\(key)\":\(json)}".utf8))
  }
}

extension [NamedTensor] {
  subscript(name: String) -> Tensor? {
    get { first { $0.name == name }?.tensor }
    set {
      removeAll { $0.name == name }
      if let newValue { append(NamedTensor(name: name, tensor: newValue)) }
    }
  }
}

/// The reason a format gives for not storing a weight.
func refusal(_ body: () throws -> Void) -> String? {
  do { try body() } catch FormatError.cannotStore(_, _, let reason) { return reason } catch { return "another error: \(error)" }
  return nil
}

/// The error of a reader.
func checkpointError(_ body: () throws -> Void) -> CheckpointError? {
  do { try body() } catch { return error as? CheckpointError }
  return nil
}

/// Zeros of a type, for tensors that are to be refused.
func blank(_ dtype: DType, _ shape: [Int]) -> Tensor {
  Tensor(dtype: dtype, shape: shape, integers: [UInt8](repeating: 0, count: shape.reduce(dtype.bitCount / 8, *)))
}
