import Models
import Tensors

/// A decoder block that can be run without some of its layers.
struct PartwiseBlock: Sendable {
  let prepared: PreparedBlock
  /// Input groups of every layer.
  let parts: [Range<Int>]

  init(_ block: Block, positions: Int) {
    prepared = PreparedBlock(block, positions: positions)
    parts = block.description?.subBlocks ?? []
  }

  /// The residual stream after the given layers, ascending; the others add nothing.
  func forward(_ hidden: Matrix, through kept: [Int]) -> Matrix {
    kept.reduce(hidden) { residual, part in
      var state = prepared.resume(stage: parts[part].lowerBound, residual: residual, input: nil)
      while state.stage < parts[part].upperBound { prepared.advance(&state) }
      return state.residual
    }
  }

  /// What the layer's last linear reads.
  func writerInput(_ hidden: Matrix, of part: Int) -> Matrix {
    var state = prepared.resume(stage: parts[part].lowerBound, residual: hidden, input: nil)
    while state.stage < parts[part].upperBound - 1 { prepared.advance(&state) }
    return state.input ?? hidden
  }
}
