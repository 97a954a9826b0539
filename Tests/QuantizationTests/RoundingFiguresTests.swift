import Models
import Passes
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

  /// The pass reads the checkpoint in strips and measures as it goes; the whole matrix is what it is held to.
  @Test(arguments: schemes, [DType.float32, .bfloat16]) func stripsFromTheFileAreTheWholeWeight(
    _ scheme: QuantizationScheme, _ dtype: DType
  ) {
    // Three strips, the last one cut off, and the same numbers lying transposed.
    let full = Matrix.random(rows: 1500, columns: 96, key: "strips")
    let stored = Tensor(full.elements.enumerated().map { $0 % 5 == 0 ? 0 : $1 }, shape: [1500, 96], dtype: dtype)
    let weight = StoredWeight(stored).dense()
    let turned = StoredWeight(Tensor(weight.transposed().elements, shape: [96, 1500], dtype: dtype), isTransposed: true)
    let expected = RoundToNearest.quantize(weight, scheme: scheme)
    let figures = RoundingFigures(of: expected, against: weight)
    let global = scheme.hasGlobalScale ? ScaleSearch.globalScale(amax: weight.amax) : nil
    for source in [StoredWeight(stored), turned, weight] as [any Weight] {
      let search = ScaleSearch(scheme: scheme, choice: .clip, globalScale: global)
      let found = RoundToNearest.quantize(WeightRows(source), search, nil, measuring: true)
      #expect(found.quantized == expected)
      #expect(abs(found.figures.relativeError - figures.relativeError) <= 1e-6 * figures.relativeError)
      #expect(abs(found.figures.clip - figures.clip) <= 1e-9)
      #expect(found.figures.zeros == figures.zeros)
    }
  }

  @Test func layersWithoutAGlobalScaleKeepTheirOwnBesideOneThatHasIt() async throws {
    var pass = RoundToNearest()
    pass.numbers = .fp8
    pass.overrides = [QuantizationOverride(layers: LayerSelector(include: ["q_proj"]), numbers: .nvfp4)]
    let model = try TinyModel.model(dtype: .bfloat16)
    let sink = Rounded()
    _ = try await Pipeline([pass]).run(on: model, options: SweepOptions(), into: sink)
    let (before, after) = (try model.block(0), await sink.blocks[1])
    for name in before.linears.keys {
      let rounded = try #require(after[name].weight as? QuantizedMatrix)
      let weight = before[name].weight.dense()
      #expect(rounded.scheme.hasGlobalScale == name.rawValue.hasSuffix("q_proj"))
      #expect(RoundingFigures(of: rounded, against: weight).relativeError < 0.02, "\(name)")
    }
  }
}

private actor Rounded: PartSink {
  var blocks: [any ModelPart] = []
  func append(_ part: any ModelPart) { blocks.append(part) }
}
