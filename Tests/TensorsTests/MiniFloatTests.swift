import Foundation
import Tensors
import TestSupport
import Testing

/// The nearest number of a format by looking at all of them: halves to the even code, beyond the largest to the largest.
private func nearest(_ value: Float, _ format: MiniFloat) -> (code: UInt8, value: Float) {
  let sign = UInt8(value.sign == .minus ? 1 << (format.bits - 1) : 0)
  let magnitude = Double(abs(value))
  let candidates = (0..<1 << (format.bits - 1)).filter { format.values[$0].isFinite }
  let best = candidates.min { a, b in
    let (x, y) = (abs(Double(format.values[a]) - magnitude), abs(Double(format.values[b]) - magnitude))
    return x == y ? a % 2 == 0 : x < y
  }!
  return (UInt8(best) | sign, value.sign == .minus ? -format.values[best] : format.values[best])
}

struct MiniFloatTests {
  private static let formats = [MiniFloat.e4m3, .e2m1, .e2m3]

  @Test func theTablesAreTheStandards() {
    #expect(Array(MiniFloat.e2m1.values[0..<8]) == [0, 0.5, 1, 1.5, 2, 3, 4, 6])
    #expect(MiniFloat.e2m1.values[8...].map { -$0 } == [0, 0.5, 1, 1.5, 2, 3, 4, 6])
    let e4m3 = MiniFloat.e4m3.values
    #expect(e4m3[0x01] == 0x1p-9 && e4m3[0x08] == 0x1p-6 && e4m3[0x38] == 1 && e4m3[0x7E] == 448 && e4m3[0xFE] == -448)
    #expect(e4m3[0x7F].isNaN && e4m3[0xFF].isNaN)
    #expect(MiniFloat.e2m3.values.prefix(32).max() == 7.5 && MiniFloat.e2m3.values[1] == 0.125)
  }

  @Test func everyCodeComesBack() {
    for format in Self.formats {
      let codes = (0..<1 << format.bits).map { UInt8($0) }.filter { format.values[Int($0)].isFinite }
      #expect(format.encode(codes.map { format.values[Int($0)] }) == codes)
    }
  }

  /// Ties and their neighbours, from the notes on compressed-tensors.
  @Test func halvesGoToTheEvenCode() {
    let cases: [(Float, Float)] = [
      (0.25, 0), (0.2500001, 0.5), (0.75, 1), (0.74, 0.5), (1.25, 1), (1.26, 1.5), (1.75, 2), (1.74, 1.5), (2.5, 2), (2.51, 3), (3.5, 4),
      (3.49, 3), (5, 4), (5.01, 6), (7, 6),
    ]
    for (value, expected) in cases { #expect(MiniFloat.e2m1.rounded(value) == expected, "\(value)") }
    #expect(MiniFloat.e2m1.encode([-0.25]) == [8])
  }

  @Test func roundingIsToTheNearest() {
    for format in Self.formats {
      let spread = Matrix.random(rows: 1, columns: 4099, key: "minifloat", scale: format.largest / 2).elements
      let small = Matrix.random(rows: 1, columns: 999, key: "small", scale: 0.02).elements
      // The middle between every pair of neighbours, too.
      let finite = format.values.filter(\.isFinite).sorted()
      let middles = zip(finite, finite.dropFirst()).map { ($0 + $1) / 2 }
      for values in [spread, small, middles, [format.largest * 3, -format.largest * 3, 0, -0.0]] {
        #expect(format.encode(values) == values.map { nearest($0, format).code })
        for value in values { #expect(format.rounded(value) == nearest(value, format).value) }
      }
    }
  }

  @Test(arguments: [1, 7, 16, 33, 255]) func scalesAndErrors(_ count: Int) {
    let x = Matrix.random(rows: 1, columns: count, key: "x").elements
    let importance = Matrix.random(rows: 1, columns: count, key: "importance").elements.map { $0 * $0 }
    for format in Self.formats {
      let scale: Float = 0.37
      let codes = format.encode(x, scale: scale)
      var decoded = [Float](repeating: 0, count: count)
      decoded.withUnsafeMutableBufferPointer { out in
        codes.withUnsafeBufferPointer { format.decode($0, scale: scale, into: out.baseAddress!) }
      }
      var rounded = x
      rounded.withUnsafeMutableBufferPointer { format.round($0, scale: scale) }
      for index in 0..<count {
        #expect(decoded[index] == nearest(x[index] / scale, format).value * scale)
        #expect(rounded[index] == decoded[index])
      }
      let expected = (0..<count).reduce(0.0) { $0 + Double(importance[$1]) * pow(Double(x[$1] - decoded[$1]), 2) }
      let found = x.withUnsafeBufferPointer { x in
        importance.withUnsafeBufferPointer { format.error(x, importance: $0.baseAddress, scale: scale) }
      }
      #expect(abs(Double(found) - expected) <= 1e-5 * expected + 1e-12)
    }
  }

  /// compressed-tensors' rule: the exponent of amax, one higher from a mantissa of 1.75 on, minus that of the largest element.
  @Test func powersOfTwo() {
    func exponent(_ amax: Float, _ format: MiniFloat) -> Int { Int(PowerOfTwoScale.code(amax: amax, of: format)) - 127 }
    #expect(exponent(8, .e2m1) == 1 && exponent(6, .e2m1) == 0 && exponent(6.99, .e2m1) == 0 && exponent(7, .e2m1) == 1)
    #expect(exponent(448, .e4m3) == 1 && exponent(256, .e4m3) == 0 && exponent(8, .e4m3) == -5)
    #expect(PowerOfTwoScale.code(amax: 0, of: .e2m1) == 0)
    for code in UInt8(0)...254 { #expect(PowerOfTwoScale.code(of: PowerOfTwoScale.value(code)) == code) }
    #expect(PowerOfTwoScale.value(127) == 1 && PowerOfTwoScale.value(0) == 0x1p-127 && PowerOfTwoScale.value(255).isNaN)
  }
}
