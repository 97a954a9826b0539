import CompressKit
import TestSupport
import Testing

@testable import Quantization

struct TwoSidedDescentTests {
  private static func matrix(_ rows: Int, _ columns: Int, _ key: String) -> Matrix {
    var random = KeyedRandomness(seed: 11, key: key)
    return Matrix(rows: rows, columns: columns, elements: (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) })
  }

  /// XᵀX + ½ I of fewer rows than columns, whose features go together.
  private static func moment(_ size: Int, _ key: String) -> Matrix {
    let x = matrix(size / 2, size, key)
    var moment = x.transposed().times(transposed: x.transposed())
    for index in 0..<size { moment[index, index] += 0.5 }
    return moment
  }

  /// tr(H_O · E · H_I · Eᵀ), term by term in double precision.
  private static func loss(_ weight: Matrix, _ quantized: Matrix, _ input: Matrix, _ output: Matrix) -> Double {
    let error = zip(weight.elements, quantized.elements).map { Double($0) - Double($1) }
    let (rows, columns) = (weight.rows, weight.columns)
    var product = [Double](repeating: 0, count: rows * columns)
    for row in 0..<rows {
      for column in 0..<columns {
        for other in 0..<columns { product[row * columns + column] += error[row * columns + other] * Double(input[other, column]) }
      }
    }
    var sum = 0.0
    for row in 0..<rows {
      for other in 0..<rows {
        for column in 0..<columns {
          sum += Double(output[row, other]) * product[other * columns + column] * error[row * columns + column]
        }
      }
    }
    return sum
  }

  private struct Case {
    let weight = matrix(24, 32, "weight")
    let input = moment(32, "input")
    let output = moment(24, "output")
    let start: QuantizedMatrix

    init(_ scheme: QuantizationScheme) { start = RoundToNearest.quantize(weight, scheme: scheme) }

    func refined(rounds: Int = 3, refits: Bool = true, zeros: SparsityMask? = nil) -> (quantized: QuantizedMatrix, share: Double) {
      TwoSidedDescent(input: input, output: output, weight: weight, refits: refits).refined(start, rounds: rounds, zeros: zeros)
    }

    func loss(_ quantized: QuantizedMatrix) -> Double { TwoSidedDescentTests.loss(weight, quantized.dense(), input, output) }
  }

  private static let schemes = [
    QuantizationScheme(bits: 2, granularity: .group(8), symmetric: true, scaleType: .float32),
    QuantizationScheme(bits: 3, granularity: .group(16), symmetric: false, scaleType: .bfloat16),
    QuantizationScheme(bits: 4, granularity: .channel, symmetric: true, scaleType: .float16),
  ]

  @Test(arguments: schemes, [true, false]) func theLossFallsAndIsSaid(_ scheme: QuantizationScheme, _ refits: Bool) {
    let own = Case(scheme)
    let (quantized, share) = own.refined(refits: refits)
    let expected = own.loss(quantized) / own.loss(own.start)
    #expect(share < 0.9 && abs(share - expected) < 1e-3 * expected, "\(share), by the definition \(expected)")
    #expect(quantized.zeroPoints == own.start.zeroPoints && quantized.codes.allSatisfy { Float($0) <= scheme.top })
    #expect(quantized.scales.elements.allSatisfy { $0 == scheme.scaleType.rounded($0) })
    #expect((quantized.scales != own.start.scales) == refits)
  }

  /// Where it ends no code has a better neighbour.
  @Test(arguments: schemes) func noCodeHasABetterNeighbour(_ scheme: QuantizationScheme) {
    let own = Case(scheme)
    let quantized = own.refined(rounds: 30, refits: false).quantized
    let least = own.loss(quantized)
    for place in stride(from: 0, to: quantized.codes.count, by: 5) {
      for step in [-1, 1] {
        let code = Int(quantized.codes[place]) + step
        guard code >= 0, Float(code) <= scheme.top else { continue }
        var codes = quantized.codes
        codes[place] = UInt8(code)
        let other = QuantizedMatrix(
          scheme: scheme, rows: quantized.rows, columns: quantized.columns, codes: codes, scales: quantized.scales,
          zeroPoints: quantized.zeroPoints)
        #expect(own.loss(other) > least * (1 - 1e-5), "code \(place)")
      }
    }
  }

  /// Rows that nothing couples are solved one by one: the same codes as by descent on the inputs alone.
  @Test func uncoupledRowsAreOnTheirOwn() {
    let own = Case(Self.schemes[0])
    var identity = Matrix(rows: 24, columns: 24)
    for row in 0..<24 { identity[row, row] = 1 }
    let together = TwoSidedDescent(input: own.input, output: identity, weight: own.weight, refits: false)
      .refined(own.start, rounds: 1, zeros: nil).quantized
    for row in 0..<24 {
      var codes = (0..<32).map { Double(own.start.codes[row * 32 + $0]) }
      let scale = (0..<32).map { Double(own.start.scales[row, $0 / 8]) }
      for column in 0..<32 {
        let errors = (0..<32).map { Double(own.weight[row, $0]) - scale[$0] * (codes[$0] - Double(own.start.scheme.middle)) }
        let slope = (0..<32).reduce(0.0) { $0 + errors[$1] * Double(own.input[$1, column]) }
        let wanted = codes[column] + slope / (Double(own.input[column, column]) * scale[column])
        codes[column] = max(0, min(wanted.rounded(.toNearestOrEven), Double(own.start.scheme.top)))
      }
      #expect((0..<32).map { Double(together.codes[row * 32 + $0]) } == codes, "row \(row)")
    }
  }

  @Test func zerosStayZeros() {
    let own = Case(Self.schemes[0])
    let start = own.start
    let middle = UInt8(start.scheme.middle)
    let pruned = start.codes.enumerated().map { $0.offset % 3 == 0 ? middle : $0.element }
    let sparse = QuantizedMatrix(
      scheme: start.scheme, rows: start.rows, columns: start.columns, codes: pruned, scales: start.scales, zeroPoints: nil)
    let mask = SparsityMask(zerosOf: sparse.dense())
    let refined = TwoSidedDescent(input: own.input, output: own.output, weight: own.weight, refits: true)
      .refined(sparse, rounds: 2, zeros: mask).quantized
    #expect(refined.codes != sparse.codes)
    #expect(zip(refined.codes, mask.isPruned).allSatisfy { !$1 || $0 == middle })
  }

  @Test func threadsChangeNothing() {
    let own = Case(Self.schemes[1])
    let one = Parallel.$width.withValue(1) { own.refined().quantized }
    #expect(Parallel.$width.withValue(3) { own.refined().quantized } == one)
  }
}
