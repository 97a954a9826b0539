import Foundation
import Tensors
import TestSupport
import Testing

/// Those that a difference for every element is cheap for.
private let shortSizes = sizes.filter { $0 <= 255 }

private func expectClose(
  _ found: [Float], _ expected: [Double], relative: Double = 0, absolute: Double = 0, _ note: String = "",
  sourceLocation: SourceLocation = #_sourceLocation
) {
  expectClose(found.map { Double($0) }, expected, relative: relative, absolute: absolute, note, sourceLocation: sourceLocation)
}

private func doubles(_ x: [Float]) -> [Double] { x.map { Double($0) } }

private func largest(_ x: [Double]) -> Double { x.reduce(0) { max($0, abs($1)) } }

/// (f(x + h) − f(x − h)) / 2h in every direction.
private func differences(at x: [Double], _ f: ([Double]) -> Double) -> [Double] {
  let h = 1e-5
  return x.indices.map { i in
    var (above, below) = (x, x)
    above[i] += h
    below[i] -= h
    return (f(above) - f(below)) / (2 * h)
  }
}

struct SlopeTests {
  struct Activation: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let kernel: @Sendable (UnsafePointer<Float>, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>, Int) -> Void
    let definition: @Sendable (Double) -> (value: Double, slope: Double)
    let forward: @Sendable (inout Matrix) -> Void
    /// The same function by another formula, and without its slope.
    let plain: @Sendable (Double) -> Double
  }

  static let activations = [
    Activation(
      testDescription: "silu", kernel: { Kernel.siluSlope($0, value: $1, slope: $2, count: $3) }, definition: Reference.silu,
      forward: { $0.siluGate(Matrix(rows: 1, columns: $0.columns, repeating: 1)) }, plain: { 0.5 * $0 * (1 + tanh($0 / 2)) }),
    Activation(
      testDescription: "geluTanh", kernel: { Kernel.geluTanhSlope($0, value: $1, slope: $2, count: $3) },
      definition: Reference.geluTanh, forward: { $0.geluTanhGate(Matrix(rows: 1, columns: $0.columns, repeating: 1)) },
      plain: { $0 / (1 + exp(-2 * (2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) }),
    Activation(
      testDescription: "gelu", kernel: { Kernel.geluSlope($0, value: $1, slope: $2, count: $3) }, definition: Reference.gelu,
      forward: { $0.gelu() }, plain: { 0.5 * $0 * erfc(-$0 / 2.0.squareRoot()) }),
  ]

  @Test(arguments: activations, sizes) func areThoseOfTheDefinition(_ activation: Activation, _ count: Int) {
    for scale in [Float(1e-3), 1, 8] {
      let x = values(count, "x", scale: scale)
      var (value, slope) = ([Float](repeating: 77, count: count), [Float](repeating: 77, count: count))
      activation.kernel(x, &value, &slope, count)
      var forward = Matrix(rows: 1, columns: count, elements: x)
      activation.forward(&forward)
      #expect(value == forward.elements)
      expectClose(value, x.map { activation.definition(Double($0)).value }, relative: 1e-5, absolute: 2e-6)
      expectClose(slope, x.map { activation.definition(Double($0)).slope }, absolute: 1e-6)
      // In place.
      var same = x
      let before = slope
      same.withUnsafeMutableBufferPointer { activation.kernel($0.baseAddress!, $0.baseAddress!, &slope, count) }
      #expect(same == value && slope == before)
    }
  }

  @Test(arguments: activations) func definitionsAreSlopesOfTheirFunctions(_ activation: Activation) {
    for x in stride(from: -9.0, through: 9, by: 0.037) {
      let found = activation.definition(x)
      expectClose([found.value], [activation.plain(x)], relative: 1e-12, absolute: 1e-14)
      expectClose([found.slope], differences(at: [x]) { activation.plain($0[0]) }, relative: 1e-6, absolute: 1e-9, "at \(x)")
    }
  }

  @Test(arguments: activations) func saturate(_ activation: Activation) {
    let far: [Float] = [-3e38, -1e20, -1e4, -200, -88.5, -30, 30, 88.5, 200, 1e4, 1e20, 3e38, .infinity]
    var (value, slope) = (far, far)
    activation.kernel(far, &value, &slope, far.count)
    expectClose(slope, far.map { $0 < 0 ? 0 : 1 }, absolute: 1e-10)
    activation.kernel([.nan], &value, &slope, 1)
    #expect(value[0].isNaN && slope[0].isNaN)
  }
}

struct NormPullbackTests {
  struct Norm: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let kernel:
      @Sendable (
        UnsafePointer<Float>, UnsafePointer<Float>, Float, UnsafePointer<Float>, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>,
        Int
      ) -> Void
    let definition: @Sendable ([Double], [Double], Double, [Double]) -> (dx: [Double], weightGradient: [Double])
    let isCentred: Bool

    func forward(_ x: [Double], weight: [Double], epsilon: Double) -> [Double] {
      let mean = isCentred ? x.reduce(0, +) / Double(x.count) : 0
      let square = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(x.count)
      return zip(x, weight).map { ($0 - mean) / (square + epsilon).squareRoot() * $1 }
    }
  }

  static let norms = [
    Norm(
      testDescription: "root mean square",
      kernel: { Kernel.rmsNormPullback($0, weight: $1, epsilon: $2, gradient: $3, into: $4, weightGradient: $5, count: $6) },
      definition: { Reference.rmsNormPullback($0, weight: $1, epsilon: $2, gradient: $3) }, isCentred: false),
    Norm(
      testDescription: "layer",
      kernel: { Kernel.layerNormPullback($0, weight: $1, epsilon: $2, gradient: $3, into: $4, weightGradient: $5, count: $6) },
      definition: { Reference.layerNormPullback($0, weight: $1, epsilon: $2, gradient: $3) }, isCentred: true),
  ]

  @Test(arguments: norms, sizes) func isThatOfTheDefinition(_ norm: Norm, _ count: Int) {
    for (scale, epsilon) in [(Float(1), Float(1e-5)), (1e-4, 1e-6), (100, 1e-5)] {
      let x = values(count, "x", scale: scale).map { $0 + 0.5 * scale }
      let (weight, dy, start) = (values(count, "weight"), values(count, "dy"), values(count, "start"))
      var (dx, weightGradient) = ([Float](repeating: 77, count: count), start)
      norm.kernel(x, weight, epsilon, dy, &dx, &weightGradient, count)
      let expected = norm.definition(doubles(x), doubles(weight), Double(epsilon), doubles(dy))
      // What cancels in an element is as large as the terms it is made of.
      let mean = norm.isCentred ? x.reduce(0.0) { $0 + Double($1) } / Double(count) : 0
      let variance = x.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(count)
      let r = 1 / (variance + Double(epsilon)).squareRoot()
      let term = largest(zip(weight, dy).map { r * Double($0) * Double($1) })
      expectClose(dx, expected.dx, relative: 2e-6, absolute: 2e-6 * term)
      let sums = zip(expected.weightGradient, start).map { $0 + Double($1) }
      expectClose(weightGradient, sums, relative: 2e-6, absolute: 2e-6)
      // In place.
      var (same, again) = (dy, start)
      same.withUnsafeMutableBufferPointer { norm.kernel(x, weight, epsilon, $0.baseAddress!, $0.baseAddress!, &again, count) }
      #expect(same == dx && again == weightGradient)
    }
  }

  @Test(arguments: norms, shortSizes) func definitionIsTheGradientOfTheNorm(_ norm: Norm, _ count: Int) {
    let (x, weight, dy) = (doubles(values(count, "x")), doubles(values(count, "weight")), doubles(values(count, "dy")))
    let epsilon = 0.01
    func loss(_ x: [Double], _ weight: [Double]) -> Double {
      zip(norm.forward(x, weight: weight, epsilon: epsilon), dy).reduce(0) { $0 + $1.0 * $1.1 }
    }
    let found = norm.definition(x, weight, epsilon, dy)
    expectClose(found.dx, differences(at: x) { loss($0, weight) }, relative: 1e-6, absolute: 1e-6 * max(1e-2, largest(found.dx)))
    expectClose(found.weightGradient, differences(at: weight) { loss(x, $0) }, relative: 1e-6, absolute: 1e-8)
  }

  @Test(arguments: norms) func smallRowsAndDamagedOnes(_ norm: Norm) {
    // The third power of r is beyond a float here.
    let x = values(33, "x", scale: 1e-15)
    let (weight, dy) = (values(33, "weight"), values(33, "dy"))
    var (dx, weightGradient) = (x, [Float](repeating: 0, count: 33))
    norm.kernel(x, weight, 0, dy, &dx, &weightGradient, 33)
    let expected = norm.definition(doubles(x), doubles(weight), 0, doubles(dy))
    expectClose(dx, expected.dx, relative: 1e-5, absolute: 1e-5 * largest(expected.dx))
    for index in [0, 32] {
      var damaged = dy
      damaged[index] = .nan
      norm.kernel(x, weight, 1e-5, damaged, &dx, &weightGradient, 33)
      #expect(dx.allSatisfy { $0.isNaN })
      damaged = x
      damaged[index] = .nan
      norm.kernel(damaged, weight, 1e-5, dy, &dx, &weightGradient, 33)
      #expect(dx.allSatisfy { $0.isNaN })
    }
  }
}

struct SoftmaxPullbackTests {
  @Test(arguments: sizes) func isThatOfTheDefinition(_ count: Int) {
    for scale in [Float(1), 0.125] {
      var p = values(count, "softmax", scale: 3)
      Kernel.softmax(&p, count: count, scale: scale)
      let dp = values(count, "dp")
      var found = dp
      Kernel.softmaxPullback(p, gradient: &found, scale: scale, count: count)
      let expected = Reference.softmaxPullback(doubles(p), gradient: doubles(dp), scale: Double(scale))
      for i in 0..<count {
        #expect(abs(Double(found[i]) - expected[i]) <= 1e-6 * abs(expected[i]) + 3e-6 * Double(scale * p[i]), "element \(i)")
      }
    }
  }

  @Test(arguments: shortSizes) func definitionIsTheGradientOfSoftmax(_ count: Int) {
    let (row, dp, scale) = (doubles(values(count, "row")), doubles(values(count, "dp")), 0.7)
    func softmax(_ row: [Double]) -> [Double] {
      let terms = row.map { exp(scale * $0) }
      return terms.map { $0 / terms.reduce(0, +) }
    }
    let found = Reference.softmaxPullback(softmax(row), gradient: dp, scale: scale)
    let expected = differences(at: row) { zip(softmax($0), dp).reduce(0) { $0 + $1.0 * $1.1 } }
    expectClose(found, expected, relative: 1e-6, absolute: 1e-9)
  }

  @Test func whatIsNoNumberStaysSo() {
    for index in [0, 16] {
      var dp = values(17, "dp")
      dp[index] = .nan
      Kernel.softmaxPullback([Float](repeating: 1 / 17, count: 17), gradient: &dp, scale: 1, count: 17)
      #expect(dp.allSatisfy { $0.isNaN })
    }
  }
}

struct TrainingKernelTests {
  /// Latent codes in and about 0 … top, with ties, both edges and their neighbours, and what is far outside.
  private static func latents(_ count: Int, top: Float) -> [Float] {
    var u = values(count, "latents").map { top / 2 + $0 * top / 3 }
    for index in stride(from: 0, to: count, by: 3) { u[index] = (u[index] * 2).rounded() / 2 }
    let edges: [Float] = [
      -0.5, (-0.5 as Float).nextDown, -0.25, -0.0, 0.5, 1.5, 2.5, top - 0.5, top + 0.5, (top + 0.5).nextUp, top + 0.25, 8_388_609, -3e7,
      1e30, -.infinity, .infinity,
    ]
    for (index, edge) in edges.enumerated() where 2 * index + 1 < count { u[2 * index + 1] = edge }
    return u
  }

  @Test(arguments: sizes, [2, 3, 4, 8]) func latentCodesAsWeights(_ count: Int, _ bits: Int) {
    let top = Float((1 << bits) - 1)
    let u = Self.latents(count, top: top)
    for (scale, zero) in [(Float(0.25), Float(1 << (bits - 1))), (-0.037, 1.25), (3e-8, 0)] {
      var found = [Float](repeating: 77, count: count)
      Kernel.dequantize(latents: u, scale: scale, zero: zero, top: top, into: &found, count: count)
      #expect(found == u.map { scale * (Reference.code(latent: $0, top: top) - zero) })
    }
  }

  /// At halves, that is: the codes of weights are rounded about the middle of the grid, where what is next to a tie may fall on it.
  @Test(arguments: [2, 3, 4, 8]) func tiesAreThoseOfTheCodesOfWeights(_ bits: Int) {
    let top = Float((1 << bits) - 1)
    let u = (-4...Int(2 * top) + 4).map { Float($0) / 2 }
    var (codes, found) = ([UInt8](repeating: 77, count: u.count), u)
    u.withUnsafeBufferPointer { Kernel.quantize($0, scale: 1, zero: 0, top: top, into: &codes) }
    Kernel.dequantize(latents: u, scale: 1, zero: 0, top: top, into: &found, count: u.count)
    #expect(found == codes.map { Float($0) })
  }

  @Test(arguments: [0, 16]) func aLatentCodeThatIsNoNumberStaysSo(_ index: Int) {
    var u = values(17, "latents")
    u[index] = .nan
    var (found, dw) = (u, values(17, "dw"))
    Kernel.dequantize(latents: u, scale: 1, zero: 2, top: 3, into: &found, count: 17)
    #expect(found[index].isNaN && found.count { $0.isNaN } == 1)
    #expect(Kernel.latentPullback(u, scale: 1, zero: 2, top: 3, gradient: &dw, count: 17).scale.isNaN)
    dw[index] = .nan
    #expect(Kernel.latentPullback(values(17, "latents"), scale: 1, zero: 2, top: 3, gradient: &dw, count: 17).sum.isNaN)
  }

  @Test(arguments: sizes, [2, 3, 4, 8]) func gradientsOfLatentCodes(_ count: Int, _ bits: Int) {
    let top = Float((1 << bits) - 1)
    let (u, dw) = (Self.latents(count, top: top), values(count, "dw"))
    for (scale, zero) in [(Float(0.25), Float(1 << (bits - 1))), (-0.037, 1.25)] {
      var du = dw
      let found = Kernel.latentPullback(u, scale: scale, zero: zero, top: top, gradient: &du, count: count)
      let expected = Reference.latentPullback(u, scale: scale, zero: zero, top: top, gradient: dw)
      #expect(du == expected.du)
      let size = dw.reduce(0) { $0 + Double(abs($1)) }
      #expect(abs(Double(found.scale) - expected.scale) <= 1e-6 * size * Double(top))
      #expect(abs(Double(found.sum) - expected.sum) <= 1e-6 * size)
    }
  }

  @Test(arguments: sizes, [Float(0), 0.1]) func stepsOfAdamW(_ count: Int, _ decay: Float) {
    let (rate, beta1, beta2, epsilon, factor) = (Float(0.01), Float(0.9), Float(0.999), Float(1e-8), Float(0.25))
    var p = values(count, "p")
    var (m, v) = ([Float](repeating: 0, count: count), [Float](repeating: 0, count: count))
    var (pExpected, mExpected, vExpected) = (doubles(p), doubles(m), doubles(v))
    for step in 1...20 {
      let g = values(count, "gradient \(step)", scale: step % 5 == 0 ? 100 : 0.1).enumerated().map { $0 % 13 == 5 ? 0 : $1 }
      let powers = (pow(Double(beta1), Double(step)), pow(Double(beta2), Double(step)))
      Kernel.adamW(
        &p, gradient: g, factor: factor, first: &m, second: &v, rate: rate, beta1: beta1, beta2: beta2,
        correction1: Float(1 / (1 - powers.0)), correction2: Float(1 / (1 - powers.1)), epsilon: epsilon, decay: decay, count: count)
      for i in 0..<count {
        Reference.adamW(
          &pExpected[i], gradient: Double(g[i]) * Double(factor), first: &mExpected[i], second: &vExpected[i], step: step,
          rate: Double(rate), beta1: Double(beta1), beta2: Double(beta2), epsilon: Double(epsilon), decay: Double(decay))
      }
    }
    expectClose(p, pExpected, relative: 1e-6, absolute: 1e-6)
    expectClose(m, mExpected, relative: 1e-5, absolute: 1e-5)
    expectClose(v, vExpected, relative: 1e-5)
  }

  /// The first step is as long as the rate whatever the gradient's size, and decay moves by rate · decay · p.
  @Test func theFirstStepOfAdamW() {
    var (p, m, v): ([Float], [Float], [Float]) = ([1, 1, -2, 4], [0, 0, 0, 0], [0, 0, 0, 0])
    Kernel.adamW(
      &p, gradient: [1e-3, -1e3, 5, 0], factor: 1, first: &m, second: &v, rate: 0.1, beta1: 0.5, beta2: 0.75, correction1: 2,
      correction2: 4, epsilon: 0x1p-60, decay: 0.5, count: 4)
    expectClose(p, [1 - 0.1 - 0.05, 1 + 0.1 - 0.05, -2 - 0.1 + 0.1, 4 - 0.2], absolute: 1e-6)
    Kernel.adamW(
      &p, gradient: [.nan, 0, 0, 0], factor: 1, first: &m, second: &v, rate: 0.1, beta1: 0.5, beta2: 0.75, correction1: 2,
      correction2: 4, epsilon: 0x1p-60, decay: 0.5, count: 4)
    #expect(p[0].isNaN && m[0].isNaN && v[0].isNaN && p[1].isFinite)
  }
}
