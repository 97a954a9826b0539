internal import Models
package import Tensors

/// The low-rank factors of a linear, y = B·(A·x), that move. Where several linears read the latents of one A, that one has it.
package struct TrainableFactors: Sendable {
  /// A, [groups · rank × inputs]; `nil` where another linear has it.
  package var input: Matrix?
  /// B, [outputs × rank].
  package var output: Matrix
  private let groups: Int
  let sharesInputOf: LinearName?

  /// - Returns: `nil` where a factor is stored as codes.
  init?(_ weight: FactoredWeight) {
    guard weight.input.isNumbers, weight.output.isNumbers else { return nil }
    input = weight.sharesInputOf == nil ? weight.input.dense() : nil
    output = weight.output.dense()
    (groups, sharesInputOf) = (weight.groups, weight.sharesInputOf)
  }

  /// - Parameter input: A.
  func weight(input: Matrix) -> FactoredWeight {
    FactoredWeight(input: input, output: output, groups: groups, sharesInputOf: sharesInputOf)
  }

  /// From the gradient of B·A to those of A and B, in every group on its own.
  ///
  /// - Parameters:
  ///   - gradient: dW, [outputs × inputs].
  ///   - input: A.
  func pullback(_ gradient: Matrix, input: Matrix) -> (input: Matrix, output: Matrix) {
    let (height, rank) = (output.rows / groups, output.columns)
    let parts = Parallel.map(groups) { group in
      let own = gradient.rows(group * height..<(group + 1) * height)
      let (a, b) = (input.rows(group * rank..<(group + 1) * rank), output.rows(group * height..<(group + 1) * height))
      return own.pulled(onInput: a, output: b)
    }
    return (Matrix(stacking: parts.map(\.input)), Matrix(stacking: parts.map(\.output)))
  }
}

extension Matrix {
  /// From the gradient of B·A to those of its factors: dA = Bᵀ · dW and dB = dW · Aᵀ.
  func pulled(onInput a: Matrix, output b: Matrix) -> (input: Matrix, output: Matrix) {
    (b.transposed().times(self), times(transposed: a))
  }
}
