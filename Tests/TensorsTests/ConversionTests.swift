import Foundation
import Tensors
import TestSupport
import Testing

struct ConversionTests {
  private func narrow(_ values: [Float], _ dtype: DType) -> [UInt16] {
    Tensor(values, shape: [values.count], dtype: dtype).integers(UInt16.self)
  }

  private func widen(_ bits: [UInt16], _ dtype: DType) -> [Float] {
    Tensor(dtype: dtype, shape: [bits.count], integers: bits).floats()
  }

  @Test func bfloat16IsThatOfTorch() {
    let values: [Float] = [
      0, -0.0, 1, -1, 0.5, 1.0625, 1.1875, 448, 449, 464, 465, 480, 512, -1e9, 0x1p-6, 0x1p-7, 0x1p-9, 0x1p-10, 1.5 * 0x1p-10, 3 * 0x1p-10,
      .nan, .infinity, 0.001,
    ]
    let bytes: [UInt16] = [
      0x0000, 0x8000, 0x3F80, 0xBF80, 0x3F00, 0x3F88, 0x3F98, 0x43E0, 0x43E0, 0x43E8, 0x43E8, 0x43F0, 0x4400, 0xCE6E, 0x3C80, 0x3C00,
      0x3B00,
      0x3A80, 0x3AC0, 0x3B40, 0xFFFF, 0x7F80, 0x3A83,
    ]
    let found = narrow(values, .bfloat16)
    for index in values.indices {
      if values[index].isNaN {
        #expect(Float(bitPattern: UInt32(found[index]) << 16).isNaN)
      } else {
        #expect(found[index] == bytes[index], "\(values[index])")
      }
    }
  }

  @Test func allBFloat16PatternsSurvive() {
    let patterns = (0...UInt16.max).map { $0 }
    let values = widen(patterns, .bfloat16)
    for (pattern, value) in zip(patterns, values) where value.bitPattern != UInt32(pattern) << 16 { Issue.record("\(pattern)") }
    for (pattern, back) in zip(patterns, narrow(values, .bfloat16)) {
      let isNaN = pattern & 0x7FFF > 0x7F80
      if isNaN ? back & 0x7FFF <= 0x7F80 : back != pattern { Issue.record("\(pattern) came back as \(back)") }
    }
  }

  @Test(arguments: [DType.float32, .float16, .bfloat16, .float64], [0, 1]) func findsWhatIsNotFinite(_ dtype: DType, _ offset: Int) {
    func tensor(_ values: [Double]) -> Tensor {
      let plain =
        dtype == .float64
        ? values.withUnsafeBytes { Data($0) } : Tensor(values.map { Float($0) }, shape: [values.count], dtype: dtype).bytes
      // A file may place a tensor at an odd offset.
      return Tensor(dtype: dtype, shape: [values.count], bytes: (Data(count: offset) + plain)[offset...])
    }
    let finite = (0..<70_000).map { Double($0 % 999 - 500) }
    #expect(!tensor(finite).holdsNonfinite)
    for bad in [Double.nan, .infinity, -.infinity] {
      for index in [0, 65_535, 65_536, 69_999] {
        var damaged = finite
        damaged[index] = bad
        #expect(tensor(damaged).holdsNonfinite, "\(bad) at \(index)")
      }
    }
  }

  @Test func bfloat16RoundsToNearestEven() {
    for low in stride(from: UInt32(0), to: 0x7F80, by: 1) {
      let middle = low << 16 | 0x8000
      let found = narrow([Float(bitPattern: middle - 1), Float(bitPattern: middle), Float(bitPattern: middle + 1)], .bfloat16)
      let even = UInt16(low % 2 == 0 ? low : low + 1)
      if found != [UInt16(low), even, UInt16(low + 1)] { Issue.record("around \(low): \(found)") }
    }
    #expect(narrow([.greatestFiniteMagnitude, -.greatestFiniteMagnitude], .bfloat16) == [0x7F80, 0xFF80])
  }

  #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
    @Test func allFloat16PatternsSurvive() {
      let patterns = (0...UInt16.max).map { $0 }
      let values = widen(patterns, .float16)
      let back = narrow(values, .float16)
      for (index, pattern) in patterns.enumerated() {
        let expected = Float(Float16(bitPattern: pattern))
        if expected.isNaN {
          if !values[index].isNaN || !Float16(bitPattern: back[index]).isNaN { Issue.record("NaN \(pattern)") }
        } else if values[index].bitPattern != expected.bitPattern || back[index] != pattern {
          Issue.record("\(pattern) is \(values[index]), not \(expected), and comes back as \(back[index])")
        }
      }
    }

    @Test func float16RoundsAsTheHardwareDoes() {
      // Halfway between all neighbours, subnormal ones and the step to infinity among them, and just beside.
      var values: [Float] = []
      for pattern in UInt16(0)..<0x7C00 {
        let low = Float(Float16(bitPattern: pattern))
        let high = pattern == 0x7BFF ? 65536 : Float(Float16(bitPattern: pattern + 1))
        let middle = (low + high) / 2
        values += [middle, middle.nextUp, middle.nextDown, -middle, -middle.nextUp]
      }
      values += [1e-30, -1e-30, 1e30, .leastNonzeroMagnitude, .greatestFiniteMagnitude, 65519.99, 65520, 0x1p-25, 0x1.000002p-25, 0x1p-14]
      for (value, found) in zip(values, narrow(values, .float16)) where found != Float16(value).bitPattern {
        Issue.record("\(value) became \(found), not \(Float16(value).bitPattern)")
      }
    }
  #endif

  @Test func float64IsRounded() {
    let values: [Double] = [0, -0.0, 1, 0.1, 1e300, -1e300, .leastNonzeroMagnitude, .pi, .infinity, 1 + 0x1p-24, 1 + 0x1.8p-23]
    let tensor = Tensor(dtype: .float64, shape: [values.count], integers: values.map(\.bitPattern))
    #expect(tensor.floats().map(\.bitPattern) == values.map { Float($0).bitPattern })
  }

  @Test(arguments: [DType.float32, .float16, .bfloat16, .float64]) func bytesMayLieAnywhere(_ dtype: DType) {
    let values = Matrix.random(rows: 5, columns: 7, key: "unaligned").elements
    let narrowed =
      dtype == .float64
      ? Tensor(dtype: .float64, shape: [5, 7], integers: values.map { Double($0).bitPattern })
      : Tensor(values, shape: [5, 7], dtype: dtype)
    let expected = narrowed.floats()
    for shift in 0..<9 {
      let shifted = (Data(repeating: 0xEE, count: shift) + narrowed.bytes)[shift...]
      let tensor = Tensor(dtype: dtype, shape: [5, 7], bytes: shifted)
      #expect(tensor.floats() == expected)
      #expect(tensor.floats(rows: 1..<3) == Array(expected[7..<21]))
      #expect(tensor.floats(rows: 2..<2).isEmpty)
    }
  }

  @Test func integersMayLieAnywhere() {
    let values: [Int32] = [1, -2, .max, .min]
    let bytes = Tensor(dtype: .int32, shape: [4], integers: values).bytes
    #expect(Tensor(dtype: .int32, shape: [4], bytes: (Data([7]) + bytes)[1...]).integers(Int32.self) == values)
  }

  @Test func largeTensorsAreReadInPieces() {
    let patterns = (0..<(1 << 18) * 2 + 77).map { UInt16(truncatingIfNeeded: $0 % 0x7F00) }
    let tensor = Tensor(dtype: .bfloat16, shape: [patterns.count], integers: patterns)
    let found = tensor.floats()
    #expect(found.count == patterns.count)
    #expect(zip(found, patterns).allSatisfy { $0.bitPattern == UInt32($1) << 16 })
    #expect(Parallel.$width.withValue(1) { tensor.floats() } == found)
  }

  @Test func emptyTensorsHoldNothing() {
    #expect(Tensor(dtype: .float32, shape: [0, 3], bytes: Data()).floats().isEmpty)
    #expect(Tensor([], shape: [0], dtype: .bfloat16).bytes.isEmpty)
    #expect(Tensor(dtype: .float32, shape: [], bytes: Data(count: 4)).floats() == [0])
  }

  @Test func roundingToATypeIsWritingAndReading() {
    let values: [Float] = [0.1, 1 / 3, 1e-8, 70_000]
    #expect(values.map(DType.float32.rounded) == values)
    #expect(values.map(DType.bfloat16.rounded) == widen(narrow(values, .bfloat16), .bfloat16))
    #expect(DType.float16.rounded(70_000) == .infinity)
  }

  @Test func typesAreRankedAsTheFormatRanksThem() {
    let names = [
      "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16",
      "BF16",
      "I32", "U32", "F32", "C64", "F64", "I64", "U64",
    ]
    let bits = [8, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64]
    #expect(DType.allCases.map(\.rawValue) == names)
    #expect(DType.allCases.map(\.bitCount) == bits)
    #expect(DType.allCases.map(\.rank) == Array(0..<22))
  }
}
