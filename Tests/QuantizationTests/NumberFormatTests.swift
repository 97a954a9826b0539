import CompressKit
import Foundation
import TestSupport
import Testing

/// Float grids, tiles, biases and signed scales, by rounding and by GPTQ.
struct NumberFormatTests {
  private static let schemes: [QuantizationScheme] = [
    .nvfp4, .mx(bits: 4), .mx(bits: 8), QuantizationScheme(bits: 8, grid: .float, granularity: .channel, scaleType: .float32),
    QuantizationScheme(bits: 8, grid: .float, granularity: .tensor), QuantizationScheme(bits: 4, granularity: .tensor, symmetric: false),
    QuantizationScheme(bits: 8, grid: .float, granularity: .block(rows: 16, columns: 32)),
    QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real),
    QuantizationScheme(bits: 3, granularity: .channel, zeroPoint: .real),
    QuantizationScheme(bits: 4, granularity: .block(rows: 24, columns: 16), zeroPoint: .integer),
  ]

  private func relative(_ quantized: QuantizedMatrix, _ weight: Matrix) -> Double {
    let dense = quantized.dense()
    let error = zip(dense.elements, weight.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
    return error / weight.elements.reduce(0.0) { $0 + Double($1) * Double($1) }
  }

  @Test(arguments: schemes) func everySchemeIsWithinItsStep(_ scheme: QuantizationScheme) {
    let weight = Matrix.random(rows: 50, columns: 96, key: "formats", scale: 0.05)
    let bound = scheme.bits == 8 ? 2e-3 : scheme.bits == 3 ? 0.1 : 0.04
    for choice in ScaleChoice.allCases {
      let quantized = RoundToNearest.quantize(weight, scheme: scheme, scales: choice)
      #expect(relative(quantized, weight) < bound, "\(choice): \(relative(quantized, weight))")
      #expect(quantized.scales.rows == scheme.scaleShape(rows: 50, columns: 96).rows)
    }
    let plain = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    let searched = RoundToNearest.quantize(weight, scheme: scheme, scales: .clip)
    #expect(relative(searched, weight) <= relative(plain, weight) * (1 + 1e-5))
  }

  @Test(arguments: schemes) func gptqLosesLessThanRounding(_ scheme: QuantizationScheme) throws {
    guard scheme.groupSize(columns: 96) == 96 || 96 % scheme.groupSize(columns: 96) == 0 else { return }
    let x = correlated(tokens: 400, features: 96, key: "x")
    let weight = Matrix.random(rows: 70, columns: 96, key: "weight", scale: 0.05)
    for order in GPTQ.Order.allCases {
      let solver = try GPTQSolver.prepare(hessian(x), groupSize: scheme.groupSize(columns: 96), order: order, damping: 0.01).get()
      let (quantized, reported) = solver.quantize(weight, scheme: scheme, scales: .minmax, refit: true)
      let rounded = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
      let own = loss(difference(quantized.dense(), weight), x, damping: 0.01)
      #expect(own < loss(difference(rounded.dense(), weight), x, damping: 0.01), "\(order)")
      // What is reported is what the stored codes and scales lose.
      let norm = loss(weight, x, damping: 0.01)
      #expect(abs(reported - own / norm) < 0.02 * own / norm, "\(order): \(reported) \(own / norm)")
      #expect(quantized.holdsNonfinite == false)
    }
  }

  /// The reference algorithm, one column after the other with an explicit inverse, in double precision, on a float grid.
  @Test func floatGridsFollowTheReferenceAlgorithm() throws {
    let x = correlated(tokens: 200, features: 32, key: "naive")
    let weight = Matrix.random(rows: 6, columns: 32, key: "naive weight")
    let scheme = QuantizationScheme(bits: 8, grid: .float, granularity: .channel, scaleType: .float32)
    let solver = try GPTQSolver.prepare(hessian(x), groupSize: 32, order: .natural, damping: 0.01).get()
    let (quantized, _) = solver.quantize(weight, scheme: scheme, scales: .minmax, refit: false)
    let mean = (0..<32).reduce(0.0) { sum, i in sum + (0..<200).reduce(0.0) { $0 + pow(Double(x[$1, i]), 2) } } / 32
    for row in 0..<6 {
      var current = (0..<32).map { Double(weight[row, $0]) }
      var left = Array(0..<32)
      let scale = current.map(abs).max()! / 448
      while let column = left.first {
        var matrix = left.map { i in
          left.map { j in (0..<200).reduce(i == j ? 0.01 * mean : 0) { $0 + Double(x[$1, i]) * Double(x[$1, j]) } }
        }
        let inverse = invert(&matrix)
        let value = Double(MiniFloat.e4m3.rounded(Float(current[column] / scale))) * scale
        #expect(abs(Double(quantized.dense()[row, column]) - value) <= 0.07 * abs(value) + 1e-6)
        let error = (current[column] - value) / inverse[0][0]
        for (index, other) in left.enumerated() { current[other] -= error * inverse[0][index] }
        left.removeFirst()
      }
    }
  }

  private func invert(_ matrix: inout [[Double]]) -> [[Double]] {
    let n = matrix.count
    var result = (0..<n).map { i in (0..<n).map { $0 == i ? 1.0 : 0 } }
    for i in 0..<n {
      let pivot = matrix[i][i]
      for j in 0..<n {
        matrix[i][j] /= pivot
        result[i][j] /= pivot
      }
      for k in 0..<n where k != i {
        let factor = matrix[k][i]
        for j in 0..<n {
          matrix[k][j] -= factor * matrix[i][j]
          result[k][j] -= factor * result[i][j]
        }
      }
    }
    return result
  }

  @Test func signedScalesUseTheLongerSide() {
    // Eight is out of reach on one side only: with a negative scale it is hit exactly.
    let weight = Matrix(rows: 2, columns: 4, elements: [8, -7, 1, 0, -8, 7, -1, 0])
    let scheme = QuantizationScheme(bits: 4, granularity: .channel, symmetric: true, scaleType: .float32)
    let quantized = RoundToNearest.quantize(weight, scheme: scheme, scales: .fullRange)
    #expect(quantized.scales[0, 0] < 0 && quantized.scales[1, 0] > 0)
    for (found, expected) in zip(quantized.dense().elements, weight.elements) { #expect(abs(found - expected) < 1e-5) }
  }

  /// Mean squared errors of full-range symmetric grids with a search on normal numbers, from the algorithm notes.
  @Test(arguments: [(32, 2, 0.112), (32, 3, 0.0265), (32, 4, 0.0066), (128, 2, 0.136), (128, 3, 0.0349), (128, 4, 0.0094)])
  func fullRangeErrorsOnNormalNumbersAreKnown(_ group: Int, _ bits: Int, _ expected: Double) {
    var random = KeyedRandomness(seed: 9, key: "full range")
    let elements = (0..<1 << 17).flatMap { _ -> [Float] in
      let radius = (-2 * log(Double.random(in: .leastNonzeroMagnitude..<1, using: &random))).squareRoot()
      let angle = 2 * Double.pi * Double.random(in: 0..<1, using: &random)
      return [Float(radius * cos(angle)), Float(radius * sin(angle))]
    }
    let weight = Matrix(rows: 512, columns: 512, elements: elements)
    let scheme = QuantizationScheme(bits: bits, granularity: .group(group), symmetric: true, scaleType: .float32)
    let dense = RoundToNearest.quantize(weight, scheme: scheme, scales: .fullRange).dense()
    let error = zip(elements, dense.elements).reduce(0) { $0 + pow(Double($1.0 - $1.1), 2) } / Double(elements.count)
    #expect(error < 1.03 * expected, "\(error)")
  }

  @Test func fourOverSixHelps() {
    let weight = Matrix.random(rows: 64, columns: 256, key: "four over six")
    let plain = RoundToNearest.quantize(weight, scheme: .nvfp4, scales: .minmax)
    let searched = RoundToNearest.quantize(weight, scheme: .nvfp4, scales: .clip)
    #expect(relative(searched, weight) < 0.9 * relative(plain, weight))
    #expect(searched.globalScale == plain.globalScale)
  }

  @Test func layersThatAreFusedShareTheirGlobalScale() async throws {
    for pass in ["rtn: { numbers: nvfp4 }", "gptq: { numbers: nvfp4 }"] {
      let recipe = try Recipe(yaml: "passes: [ { \(pass) } ]", file: "test", passes: .standard)
      let sink = Collected()
      _ = try await Pipeline(recipe.passes).run(
        on: try TinyModel.model(), options: SweepOptions(calibration: TinyModel.sequences(4, length: 16)), into: sink)
      let block = await sink.blocks[1]
      for group in block.inputGroups {
        let scales = group.linears.map { (block[$0].weight as? QuantizedMatrix)?.globalScale }
        #expect(Set(scales).count == 1 && scales[0] != nil)
      }
    }
  }

  @Test func inputsAreQuantizedWhereAsked() async throws {
    let yaml = """
      passes:
        - rtn:
            { bits: 8, group_size: channel, activations: int8_static,
              overrides: [ { layers: down_proj, activations: none }, { layers: o_proj, activations: fp8 } ] }
      """
    let recipe = try Recipe(yaml: yaml, file: "test", passes: .standard)
    #expect(recipe.passes[0].usesCalibration)
    let sink = Collected()
    let report = try await Pipeline(recipe.passes).run(
      on: try TinyModel.model(dtype: .bfloat16), options: SweepOptions(calibration: TinyModel.sequences(4, length: 16)), into: sink)
    let block = await sink.blocks[1]
    let scale = try #require(block["self_attn.q_proj"].inputQuantization?.scale)
    #expect(scale > 0 && DType.bfloat16.rounded(scale) == scale && block["self_attn.v_proj"].inputQuantization?.scale == scale)
    #expect(block["mlp.down_proj"].inputQuantization == nil && block["self_attn.o_proj"].inputQuantization == .fp8)
    #expect(report.layers.contains { $0.metrics["input_maximum"] != nil })
  }

  @Test(arguments: [
    ("rtn: { numbers: nvfp4, bits: 8 }", "bits"), ("rtn: { numbers: mxfp4, group_size: 16 }", "group_size"),
    ("gptq: { numbers: fp8, symmetric: false }", "symmetric"), ("gptq: { bits: 7 }", "bits"), ("rtn: { group_size: 12x0 }", "group_size"),
    ("hqq: { numbers: fp8 }", "numbers"), ("hqq: { norm: 1.5 }", "norm"), ("gptq: { drift_correction: 2 }", "drift_correction"),
    ("lqer: { rank: 0 }", "rank"), ("allocate: { candidates: [ { bits: 4 } ] }", "candidates"),
    ("allocate: { target: 4.25 }", "target"), ("allocate: { candidates: [ { bits: 4 }, { bits: 7 } ] }", "bits"),
  ])
  func optionsThatCannotBeAreRefused(_ pass: String, _ option: String) {
    let error = #expect(throws: RecipeError.self) { try Recipe(yaml: "passes: [ { \(pass) } ]", file: "test", passes: .standard) }
    #expect("\(error.map { "\($0)" } ?? "")".contains(option))
  }
}

private actor Collected: PartSink {
  var blocks: [any ModelPart] = []
  func append(_ part: any ModelPart) { blocks.append(part) }
}
