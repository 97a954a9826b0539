internal import Models
package import Tensors

/// How far hidden states are from those that are wanted, as a share of what is wanted.
public enum StateLoss: String, Sendable, Codable, CaseIterable {
  /// Σ of squared differences over all tokens.
  case squared
  /// Every token's by the square of its own target, as the norms that read it will see it: tokens of large numbers do not outweigh others.
  case relative

  /// A sequence's loss and its gradient with respect to the states.
  ///
  /// - Parameters:
  ///   - states: [tokens × hidden size].
  ///   - wanted: the same of the original.
  package func callAsFunction(_ states: Matrix, _ wanted: Matrix) -> (loss: Double, gradient: Matrix) {
    let (rows, columns) = (states.rows, states.columns)
    var sum = 0.0
    let norms = wanted.withUnsafeElements { wanted in
      (0..<rows).map { Kernel.squaredDistance(wanted + $0 * columns, nil, count: columns) }
    }
    let whole = max(norms.reduce(0, +), .leastNormalMagnitude)
    let gradient = Matrix(rows: rows, columns: columns) { out in
      states.withUnsafeElements { states in
        wanted.withUnsafeElements { wanted in
          for row in 0..<rows {
            let share = self == .squared ? 1 / whole : 1 / (max(norms[row], .leastNormalMagnitude) * Double(rows))
            let start = row * columns
            sum += share * Kernel.squaredDistance(states + start, wanted + start, count: columns)
            let factor = Float(2 * share)
            for index in start..<start + columns { out[index] = factor * (states[index] - wanted[index]) }
          }
        }
      }
    }
    return (sum, gradient)
  }
}

/// States that blocks of a model should make, beside the predictions it should make: what the teacher makes there (Romero et al. 2015,
/// "FitNets"; Jiao et al. 2020, "TinyBERT").
package struct WantedStates: Sendable {
  /// The blocks behind which states are compared, by index.
  package var blocks: Set<Int>
  /// What the mean relative error of these states counts, beside a loss on predictions in nats.
  package var weight: Double
  /// The teacher's states, [tokens × hidden size], of a sequence behind a block of the student.
  package var states: @Sendable (_ sequence: Int, _ block: Int) throws -> Matrix

  package init(blocks: Set<Int>, weight: Double, states: @escaping @Sendable (_ sequence: Int, _ block: Int) throws -> Matrix) {
    self.blocks = blocks
    self.weight = weight
    self.states = states
  }

  /// What is pulled on the states behind a block, and their share of the loss.
  ///
  /// - Parameters:
  ///   - made: by sequence, what the student has made.
  func pull(_ made: [Matrix], behind block: Int) throws -> (loss: Double, gradients: [Matrix]) {
    let tokens = Double(max(1, made.reduce(0) { $0 + $1.rows }))
    let pulled = try Parallel.map(made.count) { sequence in
      let (loss, gradient) = StateLoss.relative(made[sequence], try states(sequence, block))
      let share = weight * Double(made[sequence].rows) / (tokens * Double(blocks.count))
      return (loss * share, gradient.scaled(by: Float(share)))
    }
    return (pulled.reduce(0) { $0 + $1.0 }, pulled.map(\.1))
  }
}
