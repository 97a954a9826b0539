package import Foundation
package import Models
internal import Synchronization
internal import Tensors

/// The calibration sequences on their way through the model, stopped before whichever input group was asked about last.
///
/// A true-sequential pass asks for group after group of one block and changes weights in between. Every sequence is kept where the last
/// question left it, so the next one goes on from there: all groups together cost one forward pass, or one and a half where the wide input
/// of the down-projection is too large to be kept and is computed twice. Which layers a kept state rests on is recorded by their
/// revisions; a change upstream sends the sequences back to the block's input.
package final class CalibrationStream: Sendable {
  private struct Position {
    var stage = 0
    /// The layers computed so far, as they were.
    var revisions: [LinearName: Linear.Revision] = [:]
    /// The norms they were computed with; `nil` before anything was.
    var norms: [String: [Float]]?
    /// Multiply-adds per token spent in the current block, and those of one whole forward pass.
    var spent = 0
    var whole = 1
  }

  package let sequences: [[Int32]]
  private let hidden: ActivationStore
  private let residuals: ActivationStore
  private let inputs: ActivationStore
  private let keepsWideInput: Bool
  private let position = Mutex(Position())
  private let longest: Int

  /// - Parameters:
  ///   - description: of the model, for the sizes of what is kept.
  ///   - memory: bytes that activations may take; beyond it they go to `scratch`.
  package init(_ sequences: [[Int32]], description: ModelDescription, memory: Int, scratch: URL) throws {
    self.sequences = sequences
    longest = sequences.map(\.count).max() ?? 0
    let tokens = sequences.reduce(0) { $0 + $1.count }
    let widths = description.blocks.map { ($0.attention.heads * $0.attention.headSize, $0.feedForward.size) }
    let narrow = tokens * 4 * (2 * description.hiddenSize + (widths.map(\.0).max() ?? 0))
    let wide = tokens * 4 * (2 * description.hiddenSize + (widths.map(\.1).max() ?? 0))
    keepsWideInput = wide <= memory
    let place = narrow <= memory ? nil : scratch
    hidden = try ActivationStore(scratch: place)
    residuals = try ActivationStore(scratch: place)
    inputs = try ActivationStore(scratch: place)
  }

  /// Bytes of activations a run over so many tokens keeps in memory at most, before any limit.
  package static func memoryNeed(tokens: Int, description: ModelDescription) -> Int {
    let widest = description.blocks.map { max($0.feedForward.size, $0.attention.heads * $0.attention.headSize) }.max() ?? 0
    return tokens * 4 * (2 * description.hiddenSize + widest)
  }

  /// Looks the sequences up in the embedding.
  package func embed(_ block: Block) throws {
    guard let table = block.inputGroups.first.map({ block[$0.linears[0]].weight }) else { return }
    let embedding = PreparedEmbedding(table)
    try Parallel.forEach(sequences.count, throwing: { [self] index in try hidden.write(embedding(sequences[index]), at: index) })
  }

  /// Accumulates the inputs of a group of a decoder block, or of the head.
  package func statistic<S: Statistic>(_: S.Type, of group: InputGroup, in block: Block) throws -> S {
    guard block.kind != .head else { return try accumulate { [self] in block.headInput(try hidden.read($0)) } }
    guard let stage = block.inputGroups.firstIndex(where: { Set(group.linears).isSubset(of: $0.linears) }) else {
      preconditionFailure("the linears \(group.linears) do not share an input")
    }
    let from = startingPoint(for: stage, in: block)
    let prepared = PreparedBlock(block, stages: from..<stage, positions: longest)
    let isWide = stage == block.inputGroups.count - 1
    let keeps = stage > from && (!isWide || keepsWideInput)
    let statistic: S = try accumulate { [self] index in
      var state = try state(of: index, at: from, prepared)
      while state.stage < stage { prepared.advance(&state) }
      if keeps { try keep(state, of: index) }
      return state.input!
    }
    count(from..<stage, in: block)
    if keeps {
      position.withLock {
        $0.stage = stage
        $0.norms = block.norms
        $0.revisions = Dictionary(uniqueKeysWithValues: block.inputGroups[..<stage].flatMap(\.linears).map { ($0, block[$0].revision) })
      }
    }
    return statistic
  }

  /// Carries all sequences through the block as it is now, to the input of the next.
  ///
  /// - Returns: how many whole forward passes the block has cost, this one included.
  package func finish(_ block: Block) throws -> Double {
    let from = startingPoint(for: block.inputGroups.count, in: block)
    let prepared = PreparedBlock(block, stages: from..<block.inputGroups.count, positions: longest)
    let strip = 8 * Parallel.width
    for start in stride(from: 0, to: sequences.count, by: strip) {
      try Task.checkCancellation()
      try Parallel.forEach(
        min(strip, sequences.count - start),
        throwing: { [self] offset in
          let index = start + offset
          var state = try state(of: index, at: from, prepared)
          while state.input != nil { prepared.advance(&state) }
          try hidden.write(state.residual, at: index)
          residuals.remove(index)
          inputs.remove(index)
        })
    }
    count(from..<block.inputGroups.count, in: block)
    return position.withLock { position in
      defer { position = Position() }
      return Double(position.spent) / Double(position.whole)
    }
  }

  /// The stage that kept states can be taken up from on the way to `stage`.
  private func startingPoint(for stage: Int, in block: Block) -> Int {
    position.withLock { position in
      let holds =
        position.stage <= stage && (position.norms ?? block.norms) == block.norms
        && position.revisions.allSatisfy { block.linears[$0.key]?.revision == $0.value }
      if !holds { (position.stage, position.revisions, position.norms) = (0, [:], nil) }
      return position.stage
    }
  }

  private func count(_ stages: Range<Int>, in block: Block) {
    func cost(_ stages: Range<Int>) -> Int {
      block.inputGroups[stages].flatMap(\.linears).reduce(0) { $0 + block[$1].weight.rows * block[$1].weight.columns }
    }
    position.withLock {
      $0.spent += cost(stages)
      $0.whole = max(1, cost(block.inputGroups.indices))
    }
  }

  private func state(of index: Int, at stage: Int, _ prepared: PreparedBlock) throws -> BlockState {
    guard stage > 0 else { return prepared.start(try hidden.read(index)) }
    let residual = try stage == 1 ? hidden.read(index) : residuals.read(index)
    let input = PreparedBlock.inputFollowsFromResidual(stage: stage) ? nil : try inputs.read(index)
    return prepared.resume(stage: stage, residual: residual, input: input)
  }

  private func keep(_ state: BlockState, of index: Int) throws {
    if state.stage > 1 { try residuals.write(state.residual, at: index) }
    if PreparedBlock.inputFollowsFromResidual(stage: state.stage) {
      inputs.remove(index)
    } else {
      try inputs.write(state.input!, at: index)
    }
  }

  /// Sequences are computed several at a time and added in their order, a few thousand tokens at once.
  private func accumulate<S: Statistic>(_ input: @Sendable (Int) throws -> Matrix) throws -> S {
    var statistic: S?
    var start = 0
    while start < sequences.count {
      try Task.checkCancellation()
      var (end, tokens) = (start, 0)
      while end < sequences.count, end == start || tokens + sequences[end].count <= 4096 {
        tokens += sequences[end].count
        end += 1
      }
      let first = start
      let batch = try Parallel.map(end - start) { try input(first + $0) }
      if statistic == nil { statistic = S(features: batch[0].columns) }
      statistic!.update(batch.count == 1 ? batch[0] : Matrix(stacking: batch))
      start = end
    }
    guard let statistic else { throw MissingCalibration() }
    return statistic
  }
}
