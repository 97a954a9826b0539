import CompressKit
import TestSupport
import Testing

@testable import Training

struct AdapterTests {
  private static func matrix(_ rows: Int, _ columns: Int, _ key: String) -> Matrix {
    var random = KeyedRandomness(seed: 5, key: key)
    return Matrix(rows: rows, columns: columns, elements: (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) })
  }

  @Test func nothingChangesAtFirst() {
    let weight = Self.matrix(6, 9, "weight")
    let adapter = Adapter(rank: 3, rows: 6, columns: 9, seed: 1, name: "a")
    #expect(adapter.added(to: weight) == weight)
    #expect(Set(adapter.input.elements).count == 27 && adapter.input.elements.allSatisfy { abs($0) <= 1.0 / 3 })
    #expect(Adapter(rank: 3, rows: 6, columns: 9, seed: 1, name: "b").input != adapter.input)
  }

  /// The derivatives of Σ dW ⊙ (W + B·A), element by element in double precision.
  @Test func gradientsAreThoseOfTheSum() {
    var adapter = Adapter(rank: 2, rows: 4, columns: 5, seed: 1, name: "a")
    adapter.output = Self.matrix(4, 2, "output")
    let above = Self.matrix(4, 5, "above")
    let found = adapter.pullback(above)
    for latent in 0..<2 {
      for column in 0..<5 {
        let expected = (0..<4).reduce(0.0) { $0 + Double(adapter.output[$1, latent]) * Double(above[$1, column]) }
        #expect(abs(Double(found.input[latent, column]) - expected) < 1e-5)
      }
      for row in 0..<4 {
        let expected = (0..<5).reduce(0.0) { $0 + Double(adapter.input[latent, $1]) * Double(above[row, $1]) }
        #expect(abs(Double(found.output[row, latent]) - expected) < 1e-5)
      }
    }
  }
}
