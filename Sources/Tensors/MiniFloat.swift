internal import CKernels

/// A floating-point element format of few bits without infinities: sign, exponent, mantissa, with subnormal numbers.
///
/// E4M3 as in Micikevicius et al. 2022 (the "fn" variant: all-ones is NaN), E2M1 and E2M3 as in the OCP microscaling specification.
public struct MiniFloat: Sendable, Hashable {
  public let bits: Int
  public let mantissaBits: Int
  /// Exponent of the smallest normal number.
  public let minExponent: Int
  public let largest: Float

  public static let e4m3 = MiniFloat(bits: 8, mantissaBits: 3, minExponent: -6, largest: 448)
  public static let e2m1 = MiniFloat(bits: 4, mantissaBits: 1, minExponent: 0, largest: 6)
  public static let e2m3 = MiniFloat(bits: 6, mantissaBits: 3, minExponent: 0, largest: 7.5)

  /// The number behind every code.
  public var values: [Float] {
    switch self {
    case .e4m3: Self.e4m3Values
    case .e2m1: Self.e2m1Values
    default: computeValues()
    }
  }

  private static let e4m3Values = e4m3.computeValues()
  private static let e2m1Values = e2m1.computeValues()

  private func computeValues() -> [Float] {
    (0..<1 << bits).map { code in
      let magnitude = code & (1 << (bits - 1) - 1)
      let (exponent, mantissa) = (magnitude >> mantissaBits, magnitude & (1 << mantissaBits - 1))
      let unit = Float(sign: .plus, exponent: minExponent - mantissaBits, significand: 1)
      let value =
        exponent == 0
        ? Float(mantissa) * unit
        : Float(sign: .plus, exponent: exponent - 1, significand: Float(1 << mantissaBits + mantissa) * unit)
      guard value <= largest else { return .nan }
      return code == magnitude ? value : -value
    }
  }

  /// The nearest number of the format; halves to even, saturating.
  public func rounded(_ value: Float) -> Float {
    var result: Float = 0
    withUnsafePointer(to: value) { compress_minifloat_round($0, 1, UInt32(mantissaBits), Int32(minExponent), largest, &result, 1) }
    return result
  }

  /// The codes of x / scale.
  package func encode(_ x: UnsafeBufferPointer<Float>, scale: Float, into codes: UnsafeMutablePointer<UInt8>) {
    guard let base = x.baseAddress else { return }
    compress_minifloat_encode(
      base, scale, UInt32(mantissaBits), Int32(minExponent), largest, UInt8(1 << (bits - 1)), codes, x.count)
  }

  package func encode(_ values: [Float], scale: Float = 1) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: values.count) { out, count in
      values.withUnsafeBufferPointer { if let base = out.baseAddress { encode($0, scale: scale, into: base) } }
      count = values.count
    }
  }

  /// scale · the numbers behind the codes.
  package func decode(_ codes: UnsafeBufferPointer<UInt8>, scale: Float, into out: UnsafeMutablePointer<Float>) {
    guard let base = codes.baseAddress else { return }
    values.withUnsafeBufferPointer { compress_minifloat_decode(base, $0.baseAddress!, scale, out, codes.count) }
  }

  /// scale · (x / scale, rounded), in place.
  package func round(_ x: UnsafeMutableBufferPointer<Float>, scale: Float) {
    guard let base = x.baseAddress else { return }
    compress_minifloat_round(base, scale, UInt32(mantissaBits), Int32(minExponent), largest, base, x.count)
  }

  /// Σ importance · (x − x̂)².
  package func error(_ x: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?, scale: Float) -> Float {
    x.baseAddress.map {
      compress_minifloat_error($0, importance, scale, UInt32(mantissaBits), Int32(minExponent), largest, x.count)
    } ?? 0
  }
}

/// Scales that are powers of two (E8M0): 2^(code − 127).
public enum PowerOfTwoScale {
  /// The exponent that OCP microscaling gives to a group of largest magnitude `amax`: floor(log₂ amax) minus that of the element format's
  /// largest number, after `amax` is rounded up where its mantissa is 1.75 or more.
  ///
  /// That is compressed-tensors' rule, which uses half a step of E2M1 for E4M3 too; the code is between 0 and 254.
  public static func code(amax: Float, of format: MiniFloat) -> UInt8 {
    guard amax > 0, amax.isFinite else { return amax > 0 ? 254 : 0 }
    let halfStep: UInt32 = 1 << 21
    let exponent = Int((amax.bitPattern + halfStep) >> 23) - 127
    return UInt8(min(max(exponent - Int(format.largest.exponent) + 127, 0), 254))
  }

  public static func value(_ code: UInt8) -> Float {
    // Subnormal at 0, NaN at 255.
    code == 255 ? .nan : code == 0 ? Float(bitPattern: 1 << 22) : Float(bitPattern: UInt32(code) << 23)
  }

  /// - Precondition: `value` came out of `value(_:)`.
  public static func code(of value: Float) -> UInt8 { UInt8(value.bitPattern >> 23) }
}
