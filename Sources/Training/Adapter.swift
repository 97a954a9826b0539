internal import Models
package import Tensors

/// A low-rank change of a weight that stays as it is, W + B·A (Hu et al. 2021, "LoRA"): few numbers to learn, and to keep moments of. What is
/// written is their sum.
package struct Adapter: Sendable {
  /// A, [rank × inputs].
  package var input: Matrix
  /// B, [outputs × rank].
  package var output: Matrix

  /// Changes nothing at first: A is drawn evenly from ± 1/√inputs, B is zero.
  ///
  /// - Parameter name: of the linear, for which the numbers are drawn.
  init(rank: Int, rows: Int, columns: Int, seed: UInt64, name: String) {
    var random = KeyedRandomness(seed: seed, key: "adapter", name)
    let bound = 1 / Float(columns).squareRoot()
    input = Matrix(
      rows: rank, columns: columns, elements: (0..<rank * columns).map { _ in Float.random(in: -bound...bound, using: &random) })
    output = Matrix(rows: rows, columns: rank)
  }

  /// W + B·A, in single precision.
  func added(to weight: Matrix) -> Matrix {
    var sum = output.times(input)
    sum.add(weight)
    return sum
  }

  /// From the gradient of the sum to those of A and B.
  func pullback(_ gradient: Matrix) -> (input: Matrix, output: Matrix) { gradient.pulled(onInput: input, output: output) }
}
