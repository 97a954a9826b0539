package import Models
import Passes
import Tensors

/// The probes on their way through the original model, and what it makes of them in the end: what a changed block does to the predictions is
/// measured from here.
package struct ProbeWalk {
  private let walk: ModelWalk
  private let head: HeadDivergence
  /// After the last block of the original model.
  private let reference: [Matrix]
  /// Before the block that is next.
  private var states: [Matrix]
  /// How many variants of a block are carried through the blocks after it at a time.
  private let width: Int

  /// - Parameter memory: bytes that hidden states may take.
  package init(_ model: Model, _ probes: [[Int32]], memory: Int) throws {
    walk = ModelWalk(model, carrying: probes)
    head = try HeadDivergence(model)
    states = try walk.embedded()
    reference = try walk.carry([states])[0]
    // Two are held besides, and every variant's states are there twice while a block turns them into the next.
    let bytes = 4 * states.reduce(0) { $0 + $1.rows * $1.columns }
    width = max(1, (memory / max(1, bytes) - 2) / 2)
  }

  /// What each variant of a block does to the predictions, when all blocks after it are the original ones.
  package func divergences(of variants: [Block], at index: Int) throws -> [Double] {
    try stride(from: 0, to: variants.count, by: width).flatMap { start in
      let outputs = try variants[start..<min(start + width, variants.count)].map { try walk.carry(states, through: $0) }
      return try walk.carry(outputs, from: index + 1).map { try head.mean(of: $0, from: reference) }
    }
  }

  /// Goes on to the block after this one.
  package mutating func advance(past block: Block) throws { states = try walk.carry(states, through: block) }
}
