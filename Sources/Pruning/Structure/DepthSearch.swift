import Evaluation
import Models
import Passes
import Tensors

/// Removes one unit at a time, always the one whose removal costs the predictions least.
///
/// Hidden states are kept at every depth, so that a candidate costs only what follows it.
struct DepthSearch {
  let walk: ResidualWalk
  let criterion: PruneDepth.Criterion

  init(_ walk: ResidualWalk, criterion: PruneDepth.Criterion) {
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
    var states = [hidden]
    for index in first..<walk.model.description.blocks.count {
      let gone = Set(removed.filter { $0.block == index }.flatMap(\.parts))
      let inputs = states[states.count - 1]
      let description = walk.model.description.blocks[index]
      let kept = description.subBlocks.indices.filter { !gone.contains($0) }
      guard !kept.isEmpty else {
        states.append(inputs)
        continue
      }
      let block = PartwiseBlock(try walk.model.block(.decoder(index: index)), positions: walk.positions)
      states.append(try Parallel.map(inputs.count) { try block.forward(inputs[$0], through: kept) })
    }
    return states
  }
}
