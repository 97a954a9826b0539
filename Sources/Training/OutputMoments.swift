internal import Foundation
package import Models
package import Passes
internal import Synchronization
package import Tensors

/// What the outputs of every linear are worth to the predictions: H_O = Σ gᵀ · g over all tokens, with g the gradient of the log-likelihood of
/// a token drawn from the model's own prediction (the Fisher information; Tseng et al. 2025, "YAQA", and Kim et al. 2025, "GuidedQuant").
///
/// The whole calibration data goes through the model once and back once, block by block: what enters the blocks and what is pulled on them may
/// lie in a scratch file, so that the memory of one block is all that is needed.
package struct OutputMoments: Analysis {
  package init() {}

  package func answer(for model: Model, in context: AnalysisContext) async throws -> Answer {
    let numbers = model.description.blocks.reduce(0) { $0 + $1.linearShapes.values.reduce(0) { $0 + $1.rows * $1.rows } }
    let answer = try Answer(scratch: 4 * numbers <= context.activationMemory / 2 || context.isRehearsal ? nil : context.scratch)
    guard !context.isRehearsal, !context.calibration.isEmpty else { return answer }
    let (sequences, count) = (context.calibration, model.description.blocks.count)
    let walk = ModelWalk(model, carrying: sequences)
    let tokens = sequences.reduce(0) { $0 + $1.count }
    let bytes = (count + 2) * tokens * model.description.hiddenSize * 4
    let inputs = try ActivationStore(scratch: bytes <= context.activationMemory / 2 ? nil : context.scratch)
    let table = PreparedEmbedding(try model.embedding())
    for sequence in sequences.indices { try inputs.write(try table(sequences[sequence]), at: sequence) }
    try walk.visit(expanding: { PreparedBlock($0, positions: walk.positions) }) { index, block in
      try Parallel.forEach(sequences.count) { sequence in
        let hidden = try block.forward(try inputs.read(index * sequences.count + sequence))
        try inputs.write(hidden, at: (index + 1) * sequences.count + sequence)
      }
      context.progress(index + 1, 3 * count)
    }
    let end = TrainableModel(
      model.description, embedding: try model.embedding(), blocks: [], head: try model.head(), moving: MovingParameters(),
      movesTables: false)
    // A few at once, because the head is expanded each time.
    for start in stride(from: 0, to: sequences.count, by: 16) {
      let part = start..<min(start + 16, sequences.count)
      let hidden = try part.map { try inputs.read(count * sequences.count + $0) }
      let pulled = try end.pull(of: SampledLabel(), Array(sequences[part]), hidden)
      for (sequence, states) in zip(part, pulled) { try inputs.write(states, at: count * sequences.count + sequence) }
    }
    for index in (0..<count).reversed() {
      try Task.checkCancellation()
      let block = try model.block(index)
      let prepared = PreparedBlock(block, positions: walk.positions)
      var sums: [LinearName: SymmetricMatrix] = [:]
      for start in stride(from: 0, to: sequences.count, by: Parallel.width) {
        let pulls = try Parallel.map(min(Parallel.width, sequences.count - start)) { offset in
          let place = index * sequences.count + start + offset
          var pull = BlockPull()
          let above = try inputs.read((index + 1) * sequences.count + start + offset)
          let below = prepared.pullback(try prepared.record(try inputs.read(place)), above, into: &pull)
          try inputs.write(below, at: place)
          return pull
        }
        for pull in pulls {
          for (name, pair) in pull.linears { sums[name, default: SymmetricMatrix(size: pair.output.columns)].addGram(of: pair.output) }
        }
      }
      for (name, sum) in sums { try answer.put(sum, of: block.fullName(of: name)) }
      block.releasePages()
      context.progress(count + 2 * (count - index), 3 * count)
    }
    return answer
  }

  /// H_O of every linear, by full name.
  package final class Answer: Sendable {
    private let store: ActivationStore
    private let places = Mutex([String: Int]())

    init(scratch: URL?) throws { store = try ActivationStore(scratch: scratch) }

    fileprivate func put(_ moment: SymmetricMatrix, of name: String) throws {
      let place = places.withLock { places in
        places[name] = places.count
        return places.count - 1
      }
      try store.write(moment.full(shift: 0), at: place)
    }

    /// [outputs × outputs]; `nil` where no token has reached the linear.
    package func moment(of name: String) throws -> Matrix? {
      guard let place = places.withLock({ $0[name] }) else { return nil }
      return try store.read(place)
    }
  }
}

/// −log q of a token drawn from q itself: its gradients' second moment is the Fisher information of the prediction.
///
/// The draw depends on the logits alone, and so on nothing that differs from run to run.
struct SampledLabel: LogitLoss {
  var needsTeacher: Bool { false }

  func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double? {
    // The first logits are as good a seed as any: they differ from token to token.
    let seed = (0..<min(count, 8)).reduce(UInt64(count)) { $0 &* 0x100_0000_01B3 ^ UInt64(logits[$1].bitPattern) }
    var random = KeyedRandomness(seed: seed, key: "label")
    Kernel.softmax(logits, count: count, scale: 1)
    var (label, left) = (0, Float.random(in: 0..<1, using: &random))
    while label < count - 1, left >= logits[label] {
      left -= logits[label]
      label += 1
    }
    let loss = -log(Double(max(logits[label], .leastNormalMagnitude)))
    logits[label] -= 1
    return loss
  }
}
