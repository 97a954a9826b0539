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

  /// What a block is written with is its weights and a change of the adapter's rank.
  @Test func theSumIsWritten() throws {
    let block = try TinyModel.model().block(0)
    var moving = MovingParameters()
    moving.adapterRank = 2
    var (trainable, optimizer) = (TrainableBlock(block, moving: moving), AdamW())
    var rates = StepRates()
    rates.numbers = 0.01
    for step in 0..<3 {
      var gradient = BlockGradient()
      for (name, linear) in block.linears {
        gradient.weights[name] = Self.matrix(linear.weight.rows, linear.weight.columns, "\(name.rawValue) \(step)")
      }
      optimizer.begin()
      trainable.step(gradient, &optimizer, rates)
    }
    let finished = trainable.finished()
    for (name, linear) in block.linears {
      var change = finished[name].weight.dense()
      change.add(linear.weight.dense().scaled(by: -1))
      #expect(Self.rank(of: change) == 2, "\(name)")
    }
  }

  /// By Gaussian elimination in double precision; what is left below a thousandth of the largest element counts as nothing.
  private static func rank(of matrix: Matrix) -> Int {
    var rows = (0..<matrix.rows).map { row in (0..<matrix.columns).map { Double(matrix[row, $0]) } }
    let limit = 1e-3 * (matrix.elements.map { Double(abs($0)) }.max() ?? 0)
    var rank = 0
    while rank < rows.count {
      // The largest of all that is left leads.
      let places = (rank..<rows.count).flatMap { row in rows[row].indices.map { (row, $0) } }
      guard let (row, column) = places.max(by: { abs(rows[$0.0][$0.1]) < abs(rows[$1.0][$1.1]) }), abs(rows[row][column]) > limit else {
        break
      }
      rows.swapAt(rank, row)
      for other in rank + 1..<max(rank + 1, rows.count) {
        let factor = rows[other][column] / rows[rank][column]
        for place in rows[other].indices { rows[other][place] -= factor * rows[rank][place] }
      }
      rank += 1
    }
    return rank
  }
}
