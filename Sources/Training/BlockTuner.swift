internal import Models
package import Tensors

/// Moves the parameters of one block until its output comes as near as it can to what the original block makes.
package struct BlockTuner: Sendable {
  package var loss = StateLoss.relative
  /// Passes over the sequences.
  package var epochs: Int
  /// Sequences a step.
  package var batch: Int
  package var schedule: LearningRate
  /// At the schedule's peak.
  package var rates: StepRates
  /// Tokens of the longest sequence.
  package var positions: Int

  package init(epochs: Int, batch: Int, schedule: LearningRate, rates: StepRates, positions: Int) {
    self.epochs = epochs
    self.batch = batch
    self.schedule = schedule
    self.rates = rates
    self.positions = positions
  }

  /// A sequence: what enters the block, and what the original block makes of what entered it.
  package typealias Example = @Sendable (_ index: Int) throws -> (input: Matrix, target: Matrix)

  package struct Outcome: Sendable {
    /// As it was at its best on the sequences kept out.
    package var block: TrainableBlock
    /// Losses on the sequences kept out, as shares of the targets' squares.
    package var before: Double
    package var after: Double
    package var steps: Int
    /// The step behind which numbers overflowed; `nil` where none did.
    package var divergedAt: Int?
  }

  /// - Parameters:
  ///   - training: the sequences that gradients are taken of.
  ///   - keptOut: those that decide when the block is at its best.
  ///   - random: for the order of sequences.
  package func tune(
    _ start: TrainableBlock, _ example: @escaping Example, training: [Int], keptOut: [Int], random: inout some RandomNumberGenerator
  ) throws -> Outcome {
    var (block, optimizer) = (start, AdamW())
    let before = try loss(of: block, example, keptOut)
    var best = Outcome(block: start, before: before, after: before, steps: 0)
    let perEpoch = (training.count + batch - 1) / batch
    var step = 0
    for _ in 0..<epochs {
      let order = training.shuffled(using: &random)
      do {
        for first in stride(from: 0, to: order.count, by: batch) {
          try Task.checkCancellation()
          let gradient = try gradient(of: block, example, Array(order[first..<min(first + batch, order.count)]))
          let rate = schedule(step, of: epochs * perEpoch)
          optimizer.begin()
          block.step(gradient, &optimizer, rates.scaled(by: rate))
          step += 1
        }
        let now = try loss(of: block, example, keptOut)
        if now < best.after { (best.block, best.after, best.steps) = (block, now, step) }
      } catch is NonFiniteActivation {
        // Steps too large have led where nothing can be computed; what was best before that is kept.
        best.divergedAt = step
        break
      }
    }
    return best
  }

  private func gradient(of block: TrainableBlock, _ example: @escaping Example, _ sequences: [Int]) throws -> BlockGradient {
    let prepared = PreparedBlock(block.expanded(), positions: positions)
    let pulls = try Parallel.map(sequences.count) { index in
      let (input, target) = try example(sequences[index])
      let run = try prepared.record(input)
      var pull = BlockPull()
      _ = prepared.pullback(run, self.loss(run.output, target).gradient, into: &pull)
      return pull
    }
    return BlockGradient(of: pulls, weightsOf: block.wantedLinears)
  }

  private func loss(of block: TrainableBlock, _ example: @escaping Example, _ sequences: [Int]) throws -> Double {
    let prepared = PreparedBlock(block.expanded(), positions: positions)
    let losses = try Parallel.map(sequences.count) { index in
      let (input, target) = try example(sequences[index])
      return loss(try prepared.forward(input), target).loss
    }
    return losses.reduce(0, +) / Double(max(1, losses.count))
  }
}

extension StepRates {
  /// All of them at some point of a schedule whose peak is 1.
  fileprivate func scaled(by share: Float) -> StepRates {
    var rates = self
    rates.codes *= share
    rates.scales *= share
    rates.zeroPoints *= share
    rates.numbers *= share
    return rates
  }
}
