import Tensors

/// The named combinations of weight and input formats that compressed-tensors and llm-compressor know.
public struct QuantizationPreset: Sendable, Hashable {
  public var weights: QuantizationScheme
  public var input: InputQuantization?

  public init(_ weights: QuantizationScheme, _ input: InputQuantization? = nil) {
    self.weights = weights
    self.input = input
  }

  /// By upper-case name.
  public static let all: [String: QuantizationPreset] = {
    var presets: [String: QuantizationPreset] = [
      "W8A8": QuantizationPreset(.init(bits: 8, granularity: .channel), .int(8)),
      "INT8": QuantizationPreset(.init(bits: 8, granularity: .channel), .int(8)),
      "W4A16_ASYM": QuantizationPreset(.init(bits: 4, granularity: .group(128), zeroPoint: .integer)),
      "W4AFP8": QuantizationPreset(.init(bits: 4, granularity: .group(128)), .fp8),
      "FP8": QuantizationPreset(.init(bits: 8, grid: .float, granularity: .tensor), .fp8Tensor),
      "FP8_DYNAMIC": QuantizationPreset(.init(bits: 8, grid: .float, granularity: .channel), .fp8),
      "FP8_BLOCK": QuantizationPreset(.init(bits: 8, grid: .float, granularity: .block(rows: 128, columns: 128)), .fp8Group),
      "NVFP4A16": QuantizationPreset(.nvfp4), "NVFP4": QuantizationPreset(.nvfp4, .nvfp4),
      "MXFP4A16": QuantizationPreset(.mx(bits: 4)), "MXFP4": QuantizationPreset(.mx(bits: 4), .mx(bits: 4)),
      "MXFP8A16": QuantizationPreset(.mx(bits: 8)), "MXFP8": QuantizationPreset(.mx(bits: 8), .mx(bits: 8)),
    ]
    for bits in 2...8 { presets["W\(bits)A16"] = QuantizationPreset(.init(bits: bits, granularity: .group(128))) }
    for bits in 2...7 { presets["W\(bits)A8"] = QuantizationPreset(.init(bits: bits, granularity: .group(128)), .int(8)) }
    for bits in 2...4 { presets["W\(bits)A4"] = QuantizationPreset(.init(bits: bits, granularity: .group(128)), .int(4)) }
    return presets
  }()

  /// - Returns: `nil` for a name that nobody gave; letters may be of either case.
  public static func named(_ name: String) -> QuantizationPreset? { all[name.uppercased()] }
}

extension InputQuantization {
  /// Integers by a scale per token, found as it comes.
  public static func int(_ bits: Int) -> InputQuantization { InputQuantization(bits: bits, granularity: .token) }
  /// Integers by one calibrated scale.
  public static func intTensor(_ bits: Int) -> InputQuantization { InputQuantization(bits: bits, granularity: .tensor) }
  /// E4M3 by a scale per token.
  public static let fp8 = InputQuantization(bits: 8, grid: .float, granularity: .token)
  /// E4M3 by one calibrated scale.
  public static let fp8Tensor = InputQuantization(bits: 8, grid: .float, granularity: .tensor)
  /// E4M3 by a scale per 128 features of a token.
  public static let fp8Group = InputQuantization(bits: 8, grid: .float, granularity: .group(128))
  /// E2M1 with E4M3 scales of 16 features, under one calibrated scale.
  public static let nvfp4 = InputQuantization(bits: 4, grid: .float, granularity: .group(16), scaleType: .float8E4M3)
  /// E2M1 or E4M3 with a power of two per 32 features.
  public static func mx(bits: Int) -> InputQuantization {
    InputQuantization(bits: bits, grid: .float, granularity: .group(32), scaleType: .float8E8M0)
  }
}
