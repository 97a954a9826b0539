import CompressKit
import TestSupport
import Testing

/// Every grid: latents begin on the codes they came from, and their way back is that of the definition.
struct LatentWeightTests {
  static let schemes: [QuantizationScheme] = [
    QuantizationScheme(bits: 2, granularity: .group(16), symmetric: true),
    QuantizationScheme(bits: 3, granularity: .group(8), symmetric: false),
    QuantizationScheme(bits: 4, granularity: .channel, symmetric: true),
    QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real),
    QuantizationScheme(bits: 8, granularity: .tensor, symmetric: true),
    QuantizationScheme(bits: 8, grid: .float, granularity: .channel),
    QuantizationScheme(bits: 8, grid: .float, granularity: .block(rows: 3, columns: 20)),
    .mx(bits: 4), .nvfp4,
  ]
  private static let weight = Matrix.random(rows: 6, columns: 64, key: "weight", scale: 0.1)

  private static func latent(_ scheme: QuantizationScheme, reach: Float) throws -> (latent: LatentWeight, quantized: QuantizedMatrix) {
    let quantized = RoundToNearest.quantize(weight, scheme: scheme)
    return (try #require(LatentWeight(quantized, original: reach > 0 ? weight : nil, reach: reach)), quantized)
  }

  @Test(arguments: schemes) func nothingMovesByBeginning(_ scheme: QuantizationScheme) throws {
    for reach in [Float(0), 0.4] {
      let (latent, quantized) = try Self.latent(scheme, reach: reach)
      #expect(latent.quantized() == quantized, "reach \(reach)")
      let (own, other) = (latent.dense(), quantized.dense())
      #expect(own.distance(to: other) < 1e-6, "reach \(reach)")
    }
    // Towards the original, where it is not out of reach.
    let (latent, _) = try Self.latent(scheme, reach: 0.4)
    let (centred, _) = try Self.latent(scheme, reach: 0)
    #expect(latent.latents != centred.latents)
  }

  /// ds, dz and the gradients of latents by their definition, element by element in double.
  @Test(arguments: schemes) func theWayBackIsThatOfTheDefinition(_ scheme: QuantizationScheme) throws {
    let (latent, quantized) = try Self.latent(scheme, reach: 0.4)
    let gradient = Matrix.random(rows: 6, columns: 64, key: "gradient")
    let found = latent.pullback(gradient)
    let (height, size) = (scheme.groupHeight(rows: 6), scheme.groupSize(columns: 64))
    let perRow = quantized.scales.columns
    var (scales, zeros) = ([Double](repeating: 0, count: found.scales.count), [Double](repeating: 0, count: found.zeros.count))
    let values = scheme.grid == .float ? scheme.miniFloat.values.map(Double.init) : (0...Int(scheme.top)).map(Double.init)
    for row in 0..<6 {
      for column in 0..<64 {
        let group = row / height * perRow + column / size
        let scale = Double(quantized.scales.elements[group]) / Double(quantized.globalScale ?? 1)
        let point = values[Int(quantized.codes[row * 64 + column])]
        let zero: Double =
          switch (scheme.grid, scheme.zeroPoint) {
          case (.float, _), (.integer, .real): 0
          case (.integer, .none): Double(scheme.middle)
          case (.integer, .integer): Double(quantized.zeroPoints!.elements[group])
          }
        let pull = Double(gradient[row, column])
        scales[group] += pull * (point - zero)
        switch scheme.zeroPoint {
        case .none: break
        case .integer: zeros[group] -= scale * pull
        case .real: zeros[group] += pull
        }
        let expected = Float(scale * pull)
        #expect(abs(found.latents[row * 64 + column] - expected) <= 1e-6 * abs(expected) + 1e-12)
      }
    }
    func close(_ a: [Float], _ b: [Double]) -> Bool { zip(a, b).allSatisfy { abs(Double($0) - $1) < 1e-4 * (1 + abs($1)) } }
    #expect(close(found.scales, scales))
    #expect(close(found.zeros, zeros))
  }

  @Test func beyondTheGridNothingIsPulled() throws {
    var (latent, _) = try Self.latent(QuantizationScheme(bits: 2, granularity: .channel, symmetric: true), reach: 0)
    (latent.latents[0], latent.latents[1], latent.latents[2]) = (-0.6, 3.6, 3.4)
    let found = latent.pullback(Matrix(rows: 6, columns: 64, repeating: 1))
    #expect(found.latents[0] == 0 && found.latents[1] == 0 && found.latents[2] != 0)
    #expect(latent.quantized().codes.prefix(3) == [0, 3, 3])
  }

  @Test func groupsThatAreNoRunsOfColumnsHaveNoLatents() {
    let quantized = RoundToNearest.quantize(Self.weight, scheme: QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true))
    let scattered = QuantizedMatrix(
      scheme: quantized.scheme, rows: 6, columns: 64, codes: quantized.codes, scales: quantized.scales, zeroPoints: nil,
      columnGroups: (0..<64).map { Int32($0 % 2) })
    #expect(LatentWeight(scattered, original: nil, reach: 0) == nil)
  }
}
