import CompressKit
import Foundation
import TestSupport
import Testing

struct RoundToNearestTests {
  @Test(arguments: [0, 1]) func agreesWithThePeer(_ index: Int) throws {
    let json = try fixture("rtn_peer")
    let weight = try #require(json["weights"]).matrix()
    let golden = try #require(json["cases"]?.elements)[index]
    let symmetric = golden["symmetric"] == .bool(true)
    let scheme = QuantizationScheme(bits: 4, granularity: .group(8), symmetric: symmetric, scaleType: .float32)
    let quantized = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    let scales = try #require(golden["scales"]).matrix()
    for (found, expected) in zip(quantized.scales.elements, scales.elements) { #expect(abs(found - expected) <= 2e-7 * expected) }
    if !symmetric { #expect(try quantized.zeroPoints == #require(golden["zero_points"]).matrix()) }
    let codes = try #require(golden["codes"]).matrix()
    let ties = Set(try #require(golden["ties"]?.elements).map { $0.text() })
    let dense = quantized.dense()
    let expectedDense = try #require(golden["dequantized"]).matrix()
    for row in 0..<weight.rows {
      for column in 0..<weight.columns {
        let found = Float(quantized.codes[row * weight.columns + column])
        if ties.contains("[\(row),\(column)]") {
          #expect(abs(found - codes[row, column]) <= 1)
          let (own, theirs) = (abs(dense[row, column] - weight[row, column]), abs(expectedDense[row, column] - weight[row, column]))
          #expect(abs(own - theirs) <= 1e-6)
        } else {
          #expect(found == codes[row, column], "[\(row), \(column)]")
          #expect(abs(dense[row, column] - expectedDense[row, column]) <= 4e-7 * abs(expectedDense[row, column]))
        }
      }
    }
  }

  /// Independent standard normal numbers (Box and Muller).
  private static func normal(_ count: Int) -> [Float] {
    var random = KeyedRandomness(seed: 4, key: "normal")
    return (0..<count / 2).flatMap { _ -> [Float] in
      let radius = (-2 * log(Double.random(in: .leastNonzeroMagnitude..<1, using: &random))).squareRoot()
      let angle = 2 * Double.pi * Double.random(in: 0..<1, using: &random)
      return [Float(radius * cos(angle)), Float(radius * sin(angle))]
    }
  }

  /// Mean squared errors of asymmetric min–max grids on normal numbers, from the algorithm notes.
  @Test(arguments: [(32, 2, 0.166), (32, 3, 0.0301), (32, 4, 0.0066), (128, 2, 0.254), (128, 3, 0.0467), (128, 4, 0.0101)])
  func errorsOnNormalNumbersAreKnown(_ group: Int, _ bits: Int, _ expected: Double) {
    let weight = Matrix(rows: 1024, columns: 1024, elements: Self.normal(1 << 20))
    let scheme = QuantizationScheme(bits: bits, granularity: .group(group), symmetric: false, scaleType: .float32)
    func error(_ choice: ScaleChoice) -> Double {
      let dense = RoundToNearest.quantize(weight, scheme: scheme, scales: choice).dense()
      return zip(weight.elements, dense.elements).reduce(0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) } / Double(1 << 20)
    }
    let found = error(.minmax)
    #expect(abs(found - expected) < 0.02 * expected, "\(found)")
    if group == 128 { #expect(error(.clip) < 0.97 * found) }
  }

  @Test(arguments: [2, 3, 4, 8], [true, false]) func theSearchIsNeverWorse(_ bits: Int, _ symmetric: Bool) {
    let weight = Matrix.random(rows: 40, columns: 64, key: "search")
    let importance = Matrix.random(rows: 1, columns: 64, key: "importance").elements.map { $0 * $0 + 0.01 }
    for type in [DType.float32, .bfloat16, .float16] {
      let scheme = QuantizationScheme(bits: bits, granularity: .group(16), symmetric: symmetric, scaleType: type)
      for factors in [nil, importance] {
        let (plain, searched) = (
          RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax, importance: factors).dense(),
          RoundToNearest.quantize(weight, scheme: scheme, scales: .clip, importance: factors).dense()
        )
        func error(_ dense: Matrix, _ row: Int, _ group: Int) -> Double {
          (group * 16..<group * 16 + 16).reduce(0) {
            let error = Double(dense[row, $1]) - Double(weight[row, $1])
            return $0 + Double(factors?[$1] ?? 1) * error * error
          }
        }
        for row in 0..<40 { for group in 0..<4 { #expect(error(searched, row, group) <= error(plain, row, group) * (1 + 1e-5)) } }
      }
    }
  }

  @Test func importanceMattersToTheSearch() {
    let weight = Matrix.random(rows: 8, columns: 32, key: "important")
    let scheme = QuantizationScheme(bits: 2, granularity: .channel, symmetric: true, scaleType: .float32)
    let even = RoundToNearest.quantize(weight, scheme: scheme)
    #expect(RoundToNearest.quantize(weight, scheme: scheme, importance: [Float](repeating: 2, count: 32)).codes == even.codes)
    let first = RoundToNearest.quantize(weight, scheme: scheme, importance: [1000] + [Float](repeating: 1, count: 31))
    let error = { (matrix: QuantizedMatrix) in (0..<8).reduce(Float(0)) { $0 + abs(matrix.dense()[$1, 0] - weight[$1, 0]) } }
    #expect(error(first) < 0.5 * error(even))
  }

  @Test(arguments: [DType.float32, .bfloat16, .float16], ScaleChoice.allCases)
  func oddGroupsSurvive(_ type: DType, _ choice: ScaleChoice) {
    let rows: [[Float]] = [
      [0, 0, 0, 0], [1, 1, 1, 1], [-1, -1, -1, -1], [1e-20, 0, 0, -1e-20], [.leastNormalMagnitude / 64, 0, 0, 0], [0, 0, 0, 3],
      [1000, -1e-3, 0, 5],
      [-7, 0, 0, 0],
    ]
    let weight = Matrix(rows: rows.count, columns: 4, elements: rows.flatMap { $0 })
    for symmetric in [true, false] {
      let scheme = QuantizationScheme(bits: 4, granularity: .channel, symmetric: symmetric, scaleType: type)
      let quantized = RoundToNearest.quantize(weight, scheme: scheme, scales: choice)
      #expect(quantized.scales.elements.allSatisfy { $0 > 0 && $0.isFinite })
      #expect(quantized.scales.elements == quantized.scales.elements.map(type.rounded))
      #expect(quantized.codes.allSatisfy { $0 <= 15 })
      let dense = quantized.dense()
      for row in rows.indices {
        let span = max(0, rows[row].max()!) - min(0, rows[row].min()!)
        for column in 0..<4 { #expect(abs(dense[row, column] - rows[row][column]) <= max(span / (symmetric ? 7 : 14), 1e-4)) }
      }
    }
  }

  @Test func anyNumberOfThreadsGivesTheSameBytes() {
    let weight = Matrix.random(rows: 300, columns: 512, key: "threads")
    let scheme = QuantizationScheme(bits: 3, granularity: .group(64), symmetric: false)
    func quantize(_ width: Int) -> QuantizedMatrix { Parallel.$width.withValue(width) { RoundToNearest.quantize(weight, scheme: scheme) } }
    #expect(quantize(1) == quantize(2))
  }
}
