package import Models
import Passes
package import Tensors

/// The divergence of one set of hidden states from another under the same head: what a change to some block does to the predictions.
package struct HeadDivergence: Sendable {
  private let head: LogitHead

  package init(_ model: Model) throws { head = try LogitHead(model) }

  /// Mean KL(reference ‖ other) over all positions, in nats.
  ///
  /// - Parameters: hidden states before the head, [tokens × hidden size] for each sequence.
  package func mean(of hidden: [Matrix], from reference: [Matrix]) throws -> Double {
    let sums = try Parallel.map(hidden.count) { index in
      var sum = 0.0
      let rows = hidden[index].rows
      // Positions in tiles, so that the logits of a large vocabulary stay small.
      for first in stride(from: 0, to: rows, by: 128) {
        let positions = first..<min(first + 128, rows)
        let (own, other) = (try head.logits(hidden[index], positions), try head.logits(reference[index], positions))
        own.withUnsafeElements { own in
          other.withUnsafeElements { other in
            for row in 0..<positions.count {
              let (a, b) = (other + row * head.vocabularySize, own + row * head.vocabularySize)
              let count = head.vocabularySize
              sum += Kernel.klDivergence(
                a, logSumExp: Kernel.logSumExp(a, count: count), b, logSumExp: Kernel.logSumExp(b, count: count), count: count)
            }
          }
        }
      }
      return sum
    }
    return sums.reduce(0, +) / Double(max(1, hidden.reduce(0) { $0 + $1.rows }))
  }

  /// Mean negative log-likelihood of every sequence's next tokens, in nats.
  ///
  /// - Parameter hidden: as for `mean`, of the sequences `tokens`.
  package func meanNegativeLogLikelihood(of hidden: [Matrix], tokens: [[Int32]]) throws -> Double {
    let sums = try Parallel.map(hidden.count) { index in
      var sum = 0.0
      for first in stride(from: 0, to: hidden[index].rows - 1, by: 128) {
        let positions = first..<min(first + 128, hidden[index].rows - 1)
        let logits = try head.logits(hidden[index], positions)
        logits.withUnsafeElements { logits in
          for row in 0..<positions.count {
            let own = logits + row * head.vocabularySize
            sum += Kernel.logSumExp(own, count: head.vocabularySize) - Double(own[Int(tokens[index][first + row + 1])])
          }
        }
      }
      return sum
    }
    return sums.reduce(0, +) / Double(max(1, hidden.reduce(0) { $0 + $1.rows - 1 }))
  }
}

/// The final norm and the matrix that turns hidden states into logits.
package struct LogitHead: Sendable {
  let head: Head
  let weight: Matrix
  private let inputQuantization: InputQuantization?

  /// - Throws: `EvaluationError.noLogits`, and what reading the model throws.
  package init(_ model: Model) throws {
    guard model.description.hasLogits else { throw EvaluationError.noLogits }
    let matrix: Linear
    (head, matrix) = try ModelWalk(model).head()
    weight = matrix.weight.dense()
    // Nothing quantizes token ids, which are what a table reads.
    inputQuantization = head.linears.isEmpty ? nil : matrix.inputQuantization
  }

  var vocabularySize: Int { weight.rows }

  /// Logits of some positions, [positions × vocabulary].
  ///
  /// - Throws: `NonFiniteActivation` naming the final norm or the logits.
  package func logits(_ hidden: Matrix, _ positions: Range<Int>) throws(NonFiniteActivation) -> Matrix {
    let input = head.input(hidden.rows(positions))
    guard input.isFinite else { throw NonFiniteActivation(block: head.name, layer: head.norms.weights.keys.first ?? "the final norm") }
    let logits = head.finishLogits((inputQuantization?.rounded(input) ?? input).times(transposed: weight))
    guard logits.isFinite else { throw NonFiniteActivation(block: head.name, layer: "the logits") }
    return logits
  }
}
