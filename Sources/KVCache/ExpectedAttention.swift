import Models
import Tensors

/// The attention that queries still to come are expected to pay, by the size of the values (expected attention, Devoto et al. 2025).
///
/// Queries before the rotary embedding are taken as normally distributed with the mean μ and covariance Σ seen so far (the first four
/// tokens excepted); the rotation is averaged over the next 512 positions, R̄. With μ̄ = R̄μ and Σ̄ = R̄ΣR̄ᵀ, a key's score is
/// softmax(kᵀμ̄/√d + kᵀΣ̄k/2d) · ‖v‖, averaged over the queries' group before the value comes in.
struct ExpectedAttention: KeyImportance {
  /// Positions ahead that are averaged over.
  static let horizon = 512
  private static let skipped = 4

  private let description: AttentionDescription
  private var tokens = 0
  /// Σ q, [heads · size], and Σ q·qᵀ, [heads × size × size].
  private var sums: [Float]
  private var squares: [Float]
  private var next = 0
  /// The rotary embedding averaged over positions 1 … horizon, as a matrix that rows are multiplied by, [size × size].
  private var horizonRotation: Matrix?

  init(_ description: AttentionDescription) {
    self.description = description
    sums = Array(repeating: 0, count: description.heads * description.headSize)
    squares = Array(repeating: 0, count: description.heads * description.headSize * description.headSize)
  }

  mutating func observe(unrotated: Matrix, rotated: Matrix, position: Int) {
    next = position + unrotated.rows
    let first = min(unrotated.rows, max(0, Self.skipped - position))
    let (size, columns, rows) = (description.headSize, unrotated.columns, unrotated.rows - first)
    guard rows > 0 else { return }
    tokens += rows
    for row in first..<unrotated.rows { for column in 0..<columns { sums[column] += unrotated[row, column] } }
    unrotated.withUnsafeElements { states in
      squares.withUnsafeMutableBufferPointer { squares in
        for head in 0..<description.heads {
          let states = states + first * columns + head * size
          BLAS.product(
            states, stride: columns, leftTransposed: true, states, stride: columns, rows: size, columns: size, inner: rows, beta: 1,
            into: squares.baseAddress! + head * size * size, stride: size)
        }
      }
    }
  }

  mutating func scores(of heads: [() -> HeldHead], counts: [Int], rotate: (inout Matrix, [Int]) -> Void) -> [[Float]] {
    let (size, group) = (description.headSize, description.heads / description.keyValueHeads)
    // Before the fifth token nothing is known; all keys are alike.
    guard tokens > 0 else { return counts.map { Array(repeating: 1, count: $0) } }
    let scale = description.scoreScale
    let ahead = horizonRotation ?? meanRotation(rotate)
    horizonRotation = ahead
    // Rotations by two distances are one by their sum; what stretched embeddings multiply by would count twice.
    var rotation = ahead
    rotate(&rotation, Array(repeating: next, count: size))
    var unit = Matrix(rows: 1, columns: size, repeating: 1)
    rotate(&unit, [0])
    rotation = Matrix(rows: size, columns: size, elements: rotation.elements.enumerated().map { $1 / unit[0, $0 % size] })
    return heads.indices.map { index in
      let head = heads[index]()
      var mean = [Float](repeating: 0, count: head.positions.count)
      for member in 0..<group {
        let (center, spread) = moments(of: index * group + member, rotation)
        let turned = head.keys.times(transposed: spread)
        var logits = (0..<head.keys.rows).map { token in
          var (linear, square) = (Float(0), Float(0))
          for channel in 0..<size {
            linear += head.keys[token, channel] * center[channel]
            square += head.keys[token, channel] * turned[token, channel]
          }
          return linear * scale + square * scale * scale / 2
        }
        logits.withUnsafeMutableBufferPointer { Kernel.softmax($0.baseAddress!, count: $0.count, scale: 1) }
        for token in mean.indices { mean[token] += logits[token] / Float(group) }
      }
      return mean.indices.map { token in
        let value = (0..<size).reduce(Float(0)) { $0 + head.values[token, $1] * head.values[token, $1] }
        return mean[token] * value.squareRoot()
      }
    }
  }

  private func meanRotation(_ rotate: (inout Matrix, [Int]) -> Void) -> Matrix {
    let size = description.headSize
    var mean = Matrix(rows: size, columns: size)
    for basis in 0..<size {
      var rows = Matrix(rows: Self.horizon, columns: size)
      for row in 0..<Self.horizon { rows[row, basis] = 1 }
      rotate(&rows, Array(1...Self.horizon))
      for row in 0..<Self.horizon { for channel in 0..<size { mean[basis, channel] += rows[row, channel] / Float(Self.horizon) } }
    }
    return mean
  }

  /// μ̄ and Σ̄ of a query head.
  private func moments(of head: Int, _ rotation: Matrix) -> (center: [Float], spread: Matrix) {
    let (size, count) = (description.headSize, Float(tokens))
    let mean = Matrix(rows: 1, columns: size, elements: (0..<size).map { sums[head * size + $0] / count })
    var covariance = Matrix(rows: size, columns: size)
    for row in 0..<size {
      for column in 0..<size {
        covariance[row, column] = squares[(head * size + row) * size + column] / count - mean[0, row] * mean[0, column]
      }
    }
    let transposed = rotation.transposed()
    return (
      mean.times(transposed: transposed).elements, covariance.times(transposed: transposed).transposed().times(transposed: transposed)
    )
  }
}
