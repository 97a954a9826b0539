import Models
import Tensors
import TestSupport
import Testing

@testable import Quantization

@Suite struct RoundingFiguresTests {
  private static let schemes: [QuantizationScheme] = [
    QuantizationScheme(bits: 4, granularity: .group(32)), QuantizationScheme(bits: 3, granularity: .channel, zeroPoint: .integer),
    QuantizationScheme(bits: 4, granularity: .tensor),
    QuantizationScheme(bits: 8, grid: .float, granularity: .block(rows: 16, columns: 32)),
    QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real), .nvfp4,
  ]

  /// 50 rows, so that the last strip of scales 16 rows high is cut off.
  private func weight() -> Matrix {
    let full = Matrix.random(rows: 50, columns: 96, key: "figures")
    return Matrix(rows: 50, columns: 96, elements: full.elements.enumerated().map { $0 % 5 == 0 ? 0 : $1 })
  }

  @Test(arguments: schemes) func errorAndZerosAreThoseOfTheirDefinitions(_ scheme: QuantizationScheme) {
    let weight = weight()
    let quantized = RoundToNearest.quantize(weight, scheme: scheme)
    let (dense, figures) = (quantized.dense(), RoundingFigures(of: quantized, against: weight))
    let norm = weight.elements.reduce(0) { $0 + Double($1) * Double($1) }
    let error = zip(weight.elements, dense.elements).reduce(0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
    #expect(abs(figures.relativeError - error / norm) <= 1e-5 * error / norm)
    #expect(figures.zeros.before == Double(weight.elements.count { $0 == 0 }) / 4800)
    #expect(figures.zeros.now == Double(dense.elements.count { $0 == 0 }) / 4800)
  }

  @Test(arguments: schemes) func clipIsOneWithoutASearch(_ scheme: QuantizationScheme) {
    let weight = weight()
    #expect(RoundingFigures(of: RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax), against: weight).clip == 1)
  }

  @Test(arguments: schemes) func clipIsTheMeanShareOfTheCoveringScale(_ scheme: QuantizationScheme) {
    let weight = weight()
    let quantized = RoundToNearest.quantize(weight, scheme: scheme)
    let covering = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    let shares = zip(quantized.scales.elements, covering.scales.elements).map { Double(abs($0 / $1)) }
    #expect(abs(RoundingFigures(of: quantized, against: weight).clip - shares.reduce(0, +) / Double(shares.count)) < 1e-6)
  }

  @Test func rangesFollowTheGroupsOfScatteredColumns() {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(16))
    let (weight, order) = (Matrix.random(rows: 3, columns: 64, key: "scattered"), (0..<64).map { ($0 * 37) % 64 })
    let permuted = Matrix(rows: 3, columns: 64) { out in
      for row in 0..<3 { for (at, column) in order.enumerated() { out[row * 64 + at] = weight[row, column] } }
    }
    let sorted = RoundToNearest.quantize(permuted, scheme: scheme, scales: .minmax)
    var codes = sorted.codes
    var groups = [Int32](repeating: 0, count: 64)
    for (at, column) in order.enumerated() {
      groups[column] = Int32(at / 16)
      for row in 0..<3 { codes[row * 64 + column] = sorted.codes[row * 64 + at] }
    }
    let scattered = QuantizedMatrix(
      scheme: scheme, rows: 3, columns: 64, codes: codes, scales: sorted.scales, zeroPoints: nil, columnGroups: groups)
    #expect(RoundingFigures(of: scattered, against: weight).clip == 1)
  }
}
