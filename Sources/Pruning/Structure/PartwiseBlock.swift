import Models
import Tensors

/// A decoder block that can be run without some of its layers.
struct PartwiseBlock: Sendable {
  let prepared: PreparedBlock
  /// Input groups of every layer.
  let parts: [Range<Int>]

  init(_ block: Block, positions: Int) {
    prepared = PreparedBlock(block, positions: positions)
    parts = block.description.subBlocks
  }

  /// The residual stream after the given layers, ascending; the others add nothing.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  func forward(_ hidden: Matrix, through kept: [Int]) throws -> Matrix {
    // Layers side by side do not read each other, so together they are more than one after the other.
    guard kept.count < parts.count else { return try prepared.forward(hidden) }
    return try kept.reduce(hidden) { residual, part in
      var state = try prepared.resume(stage: parts[part].lowerBound, [.stream: residual])
      while state.stage < parts[part].upperBound { try prepared.advance(&state) }
      return state.residual
    }
  }

  /// What the layer's last linear reads.
  func writerInput(_ hidden: Matrix, of part: Int) throws -> Matrix {
    var state = try prepared.resume(stage: parts[part].lowerBound, [.stream: hidden])
    while state.stage < parts[part].upperBound - 1 { try prepared.advance(&state) }
    return state.input ?? hidden
  }
}
