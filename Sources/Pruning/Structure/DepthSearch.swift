import Evaluation
import Models
import Passes
import Tensors

/// Removes one unit at a time, always the one whose removal costs the predictions least.
///
/// Hidden states are kept at every depth, so that a candidate costs only what follows it.
struct DepthSearch {
  let walk: ModelWalk
  let criterion: PruneDepth.Criterion

  init(_ walk: ModelWalk, criterion: PruneDepth.Criterion) {
    self.walk = walk
    self.criterion = criterion
  }

  func run(_ units: DepthUnits, progress: (Int, Int) -> Void) throws -> Set<DepthUnit> {
    let model = walk.model
    let head = try HeadDivergence(model)
    var removed: Set<DepthUnit> = []
    // Hidden states before every block, and after the last.
    var trace = try states(from: 0, walk.embedded(), removed)
    let original = trace[trace.count - 1]
    var (done, round) = (0, 0)
    while true {
      let candidates = units.next(after: removed)
      guard !candidates.isEmpty else { break }
      var best: (score: Double, unit: DepthUnit)?
      for unit in candidates {
        try Task.checkCancellation()
        let after = try states(from: unit.block, trace[unit.block], removed.union([unit]))
        let score =
          criterion == .divergence
          ? try head.mean(of: after[after.count - 1], from: original)
          : try head.meanNegativeLogLikelihood(of: after[after.count - 1], tokens: walk.sequences)
        if best.map({ score < $0.score }) ?? true { best = (score, unit) }
        done += 1
        progress(done, done + max(0, candidates.count - done + round))
      }
      guard let unit = best?.unit else { break }
      removed.insert(unit)
      round = done
      trace = Array(trace[..<unit.block]) + (try states(from: unit.block, trace[unit.block], removed))
    }
    return removed
  }

  /// Hidden states before every block from `first` on, and after the last.
  private func states(from first: Int, _ hidden: [Matrix], _ removed: Set<DepthUnit>) throws -> [[Matrix]] {
    let blocks = walk.model.description.blocks
    let kept = blocks.indices.map { index in
      blocks[index].subBlocks.indices.filter { part in !removed.contains { $0.block == index && $0.parts.contains(part) } }
    }
    // A block that is gone hands on what enters it.
    var states = Array(repeating: hidden, count: blocks.count - first + 1)
    try walk.visit(
      from: first, where: { !kept[$0].isEmpty }, expanding: { PartwiseBlock($0, positions: walk.positions) }
    ) { index, block in
      let inputs = states[index - first]
      let outputs = try Parallel.map(inputs.count) { try block.forward(inputs[$0], through: kept[index]) }
      for place in states.indices[(index - first + 1)...] { states[place] = outputs }
    }
    return states
  }
}
