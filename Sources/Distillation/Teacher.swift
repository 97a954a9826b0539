import Evaluation
import Models
import Passes
import Tensors

/// What the teacher makes of the training sequences.
///
/// Its final hidden states are kept instead of its logits: they are exact, and much fewer numbers than even the largest few logits of every
/// token. The head is applied when logits are asked for.
struct Teacher: Sendable {
  private let states: ActivationStore
  private let head: LogitHead
  /// The blocks behind which states are kept, the last among them.
  private let blocks: [Int]

  /// Runs the teacher over the sequences, once.
  ///
  /// - Parameter wanted: the blocks behind which states are asked for; those behind the last are kept in any case.
  init(_ model: Model, _ sequences: [[Int32]], keeping wanted: Set<Int> = [], _ context: ModelPassContext) throws {
    head = try LogitHead(model)
    let blocks = wanted.union([model.description.blocks.count - 1]).sorted()
    self.blocks = blocks
    let size = model.description.hiddenSize * 4 * blocks.count
    let tokens = sequences.reduce(0) { $0 + $1.count }
    states = try ActivationStore(scratch: tokens * size <= context.activationMemory / 2 ? nil : context.scratch)
    // A few sequences at a time, so that only these are in memory.
    let turn = max(Parallel.width, context.activationMemory / max(1, 2 * (sequences.map(\.count).max() ?? 1) * size))
    for first in stride(from: 0, to: sequences.count, by: turn) {
      let walk = ModelWalk(model, carrying: Array(sequences[first..<min(first + turn, sequences.count)]))
      var hidden = try walk.embedded()
      try walk.visit { index, block in
        hidden = try walk.carry(hidden, through: block)
        guard let slot = blocks.firstIndex(of: index) else { return }
        for (offset, matrix) in hidden.enumerated() { try states.write(matrix, at: (first + offset) * blocks.count + slot) }
      }
      context.advance(min(first + turn, sequences.count), of: sequences.count, "the teacher's predictions")
    }
  }

  /// Logits of some positions of a sequence, [positions × vocabulary].
  func logits(_ sequence: Int, _ positions: Range<Int>) throws -> Matrix {
    try head.logits(try states.read(sequence * blocks.count + blocks.count - 1), positions)
  }

  /// Hidden states of a sequence behind one of the blocks that were asked for, [tokens × hidden size].
  func states(_ sequence: Int, behind block: Int) throws -> Matrix {
    guard let slot = blocks.firstIndex(of: block) else { preconditionFailure("states behind block \(block) were not kept") }
    return try states.read(sequence * blocks.count + slot)
  }
}
