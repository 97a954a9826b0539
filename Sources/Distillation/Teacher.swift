import Evaluation
import Models
import Passes
import Tensors

/// The teacher's predictions of the training sequences.
///
/// Its final hidden states are kept instead of its logits: they are exact, and much fewer numbers than even the largest few logits of every
/// token. The head is applied when logits are asked for.
struct Teacher: Sendable {
  private let states: ActivationStore
  private let head: LogitHead

  /// Runs the teacher over the sequences, once.
  init(_ model: Model, _ sequences: [[Int32]], _ context: ModelPassContext) throws {
    head = try LogitHead(model)
    let tokens = sequences.reduce(0) { $0 + $1.count }
    let bytes = tokens * model.description.hiddenSize * 4
    states = try ActivationStore(scratch: bytes <= context.activationMemory / 2 ? nil : context.scratch)
    // A few sequences at a time, so that only these are in memory.
    let turn = max(
      Parallel.width, context.activationMemory / max(1, 2 * (sequences.map(\.count).max() ?? 1) * model.description.hiddenSize * 4))
    for first in stride(from: 0, to: sequences.count, by: turn) {
      let part = Array(sequences[first..<min(first + turn, sequences.count)])
      let walk = ModelWalk(model, carrying: part)
      let hidden = try walk.carry([try walk.embedded()])[0]
      for (offset, matrix) in hidden.enumerated() { try states.write(matrix, at: first + offset) }
      context.advance(min(first + turn, sequences.count), of: sequences.count, "the teacher's predictions")
    }
  }

  /// Logits of some positions of a sequence, [positions × vocabulary].
  func logits(_ sequence: Int, _ positions: Range<Int>) throws -> Matrix { try head.logits(try states.read(sequence), positions) }
}
