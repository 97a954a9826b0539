import CompressKit
import TestSupport
import Testing

@testable import Training

struct TrainableFactorsTests {
  private static func matrix(_ rows: Int, _ columns: Int, _ key: String) -> Matrix {
    var random = KeyedRandomness(seed: 3, key: key)
    return Matrix(rows: rows, columns: columns, elements: (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) })
  }

  /// What is pulled on each factor is the derivative of Σ dW ⊙ (B·A), element by element in double precision.
  @Test(arguments: [1, 3]) func gradientsAreThoseOfTheProduct(_ groups: Int) throws {
    let (rows, columns, rank) = (6, 5, 2)
    let (a, b, above) = (
      Self.matrix(groups * rank, columns, "a"), Self.matrix(rows, rank, "b"), Self.matrix(rows, columns, "above")
    )
    let factors = try #require(TrainableFactors(FactoredWeight(input: a, output: b, groups: groups)))
    let found = factors.pullback(above, input: a)
    let height = rows / groups
    var (inputs, outputs) = ([Double](repeating: 0, count: groups * rank * columns), [Double](repeating: 0, count: rows * rank))
    for row in 0..<rows {
      for column in 0..<columns {
        for latent in 0..<rank {
          let place = row / height * rank + latent
          inputs[place * columns + column] += Double(above[row, column]) * Double(b[row, latent])
          outputs[row * rank + latent] += Double(above[row, column]) * Double(a[place, column])
        }
      }
    }
    #expect(zip(found.input.elements, inputs).allSatisfy { abs(Double($0) - $1) < 1e-5 })
    #expect(zip(found.output.elements, outputs).allSatisfy { abs(Double($0) - $1) < 1e-5 })
    #expect(factors.weight(input: a).dense() == FactoredWeight(input: a, output: b, groups: groups).dense())
  }

  @Test func codesDoNotMove() {
    let codes = RoundToNearest.quantize(Self.matrix(4, 16, "a"), scheme: QuantizationScheme(bits: 8, granularity: .group(16)))
    #expect(TrainableFactors(FactoredWeight(input: codes, output: Self.matrix(8, 4, "b"))) == nil)
  }
}
