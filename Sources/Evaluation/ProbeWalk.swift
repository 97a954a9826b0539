package import Models
import Tensors

/// The probes on their way through the original model, and what it makes of them in the end: what a changed block does to the predictions is
/// measured from here.
package struct ProbeWalk {
  private let model: Model
  private let positions: Int
  private let head: HeadDivergence
  /// After the last block of the original model.
  private let reference: [Matrix]
  /// Before the block that is next.
  private var states: [Matrix]
  /// How many variants of a block are carried through the blocks after it at a time.
  private let width: Int

  /// - Parameter memory: bytes that hidden states may take.
  package init(_ model: Model, _ probes: [[Int32]], memory: Int) throws {
    self.model = model
    positions = probes.map(\.count).max() ?? 0
    head = try HeadDivergence(model)
    let table = PreparedEmbedding(try model.block(.embedding))
    states = try probes.map { tokens in try table(tokens) }
    reference = try Self.carry([states], from: 0, model, positions)[0]
    // Two are held besides, and every variant's states are there twice while a block turns them into the next.
    let bytes = 4 * states.reduce(0) { $0 + $1.rows * $1.columns }
    width = max(1, (memory / max(1, bytes) - 2) / 2)
  }

  /// What each variant of a block does to the predictions, when all blocks after it are the original ones.
  package func divergences(of variants: [Block], at index: Int) throws -> [Double] {
    try stride(from: 0, to: variants.count, by: width).flatMap { start in
      let outputs = try variants[start..<min(start + width, variants.count)].map { try Self.outputs(of: $0, states, positions) }
      return try Self.carry(outputs, from: index + 1, model, positions).map { try head.mean(of: $0, from: reference) }
    }
  }

  /// Goes on to the block after this one.
  package mutating func advance(past block: Block) throws { states = try Self.outputs(of: block, states, positions) }

  private static func outputs(of block: Block, _ inputs: [Matrix], _ positions: Int) throws -> [Matrix] {
    let prepared = PreparedBlock(block, positions: positions)
    return try Parallel.map(inputs.count) { try prepared.forward(inputs[$0]) }
  }

  /// Several sets of states through all blocks from one on; every block is read once.
  private static func carry(_ sets: [[Matrix]], from first: Int, _ model: Model, _ positions: Int) throws -> [[Matrix]] {
    var sets = sets
    for index in first..<max(first, model.description.blocks.count) {
      try Task.checkCancellation()
      let block = try model.block(.decoder(index: index))
      let prepared = PreparedBlock(block, positions: positions)
      sets = try sets.map { inputs in try Parallel.map(inputs.count) { try prepared.forward(inputs[$0]) } }
      block.releasePages()
    }
    return sets
  }
}
