import Models
import Passes
import Tensors

/// A few calibration tokens before every input group of a block: what changes to the block are judged by.
///
/// Attention needs whole contexts, so its inputs are the beginnings of some sequences, which under causality come out as they would in the
/// whole; to an encoder they are shorter texts. Everything after it works token by token, so there tokens are taken from all sequences alike.
///
/// Losses are squared errors of the residual stream relative to its own size, averaged over tokens: what the next norm will make of them. A
/// few tokens with enormous states would decide a plain mean, and the norm takes just that from them.
struct BlockSample {
  /// Of the inputs of every group, over all tokens of all sequences given.
  let magnitudes: [InputMagnitude]
  private let description: BlockDescription
  /// By group, in pieces that may be computed at the same time: [tokens × inputs].
  private let inputs: [[Matrix]]
  /// The residual stream beside them, [tokens × hidden size].
  private let residuals: [[Matrix]]
  /// The residual stream before the block, of the same sequences that attention sees.
  private let beginnings: [Matrix]
  private static let contextLength = 256
  private static let pieceLength = 128

  /// - Parameters:
  ///   - sequences: what flows into the block, [tokens × hidden size] each; at least one.
  ///   - tokens: how many to keep; at least one of every sequence is kept.
  /// - Throws: `NonFiniteActivation` where the block overflows.
  init(of block: Block, sequences: [Matrix], tokens: Int) throws {
    description = block.description
    let stages = description.inputGroups.count
    let prepared = PreparedBlock(block, stages: 0..<stages - 1, positions: sequences.map(\.rows).max() ?? 0)
    let share = max(1, tokens / sequences.count)
    let runs = try Parallel.map(sequences.count) { index in
      var state = try prepared.start(sequences[index])
      var run: [(magnitude: InputMagnitude, input: Matrix, residual: Matrix)] = []
      while let input = state.input {
        var magnitude = InputMagnitude(features: input.columns)
        magnitude.update(input)
        run.append((magnitude, input.spread(share), state.inputResidual.spread(share)))
        guard state.stage < stages - 1 else { break }
        try prepared.advance(&state)
      }
      return run
    }
    var magnitudes = runs[0].map(\.magnitude)
    for run in runs.dropFirst() { for stage in magnitudes.indices { magnitudes[stage].merge(run[stage].magnitude) } }
    self.magnitudes = magnitudes
    let contexts = min(sequences.count, max(1, tokens / Self.contextLength))
    beginnings = (0..<contexts).map { index in
      let sequence = sequences[index * sequences.count / contexts]
      return sequence.rows(0..<min(sequence.rows, tokens, Self.contextLength))
    }
    func pieces(_ kept: (Int, Int) -> Matrix) -> [[Matrix]] {
      (1..<stages).map { stage in Matrix(stacking: runs.indices.map { kept($0, stage) }).pieces(of: Self.pieceLength) }
    }
    inputs = [try beginnings.map { try prepared.start($0).input! }] + pieces { runs[$0][$1].input }
    residuals = [beginnings] + pieces { runs[$0][$1].residual }
  }

  /// What the part of the block from group `stage` on adds to the residual stream, for each piece of the group's inputs.
  ///
  /// - Parameter scale: what every input is divided by, by column.
  func contributions(of block: Block, from stage: Int, dividedBy scale: [Float]? = nil) -> [Matrix] {
    let inputs = inputs[stage]
    let prepared = PreparedBlock(block, stages: description.rest(from: stage), positions: Self.contextLength)
    let inverse = scale.map { $0.map { 1 / $0 } }
    return Parallel.map(inputs.count) { index in
      var input = inputs[index]
      if let inverse { input.scaleColumns(by: inverse) }
      return prepared.contribution(of: input, from: stage)
    }
  }

  /// What the whole block makes of the beginnings of some sequences.
  ///
  /// - Throws: `NonFiniteActivation` where the block overflows.
  func outputs(of block: Block) throws -> [Matrix] {
    let prepared = PreparedBlock(block, positions: Self.contextLength)
    return try Parallel.map(beginnings.count) { try prepared.forward(beginnings[$0]) }
  }

  /// The loss of the residual stream behind group `stage`'s part of the block.
  ///
  /// - Parameters:
  ///   - contributions: what that part adds to it, and `reference`, what it should.
  func loss(_ contributions: [Matrix], against reference: [Matrix], from stage: Int) -> Double {
    Self.loss(contributions, against: reference, besides: residuals[stage])
  }

  /// The loss of the whole block's outputs.
  func loss(ofOutputs outputs: [Matrix], against reference: [Matrix]) -> Double { Self.loss(outputs, against: reference) }

  /// Mean over tokens of ‖a − b‖² / ‖b + residual‖².
  private static func loss(_ a: [Matrix], against b: [Matrix], besides residuals: [Matrix]? = nil) -> Double {
    var (sum, tokens) = (0.0, 0)
    for index in a.indices {
      var whole = b[index]
      if let residuals { whole.add(residuals[index]) }
      let (rows, width) = (whole.rows, whole.columns)
      tokens += whole.rows
      a[index].withUnsafeElements { a in
        b[index].withUnsafeElements { b in
          whole.withUnsafeElements { whole in
            for row in 0..<rows {
              let start = row * width
              let size = Kernel.squaredDistance(whole + start, nil, count: width)
              sum += Kernel.squaredDistance(a + start, b + start, count: width) / max(size, .leastNonzeroMagnitude)
            }
          }
        }
      }
    }
    return sum / Double(max(1, tokens))
  }

  /// The tokens kept of a group's inputs, divided by `scale`: [tokens × inputs].
  func kept(_ stage: Int, dividedBy scale: [Float]) -> Matrix {
    var kept = Matrix(stacking: inputs[stage])
    kept.scaleColumns(by: scale.map { 1 / $0 })
    return kept
  }
}

extension Matrix {
  /// At most `count` rows, evenly spread.
  fileprivate func spread(_ count: Int) -> Matrix {
    guard count < rows else { return self }
    return Matrix(stacking: (0..<count).map { rows($0 * rows / count..<$0 * rows / count + 1) })
  }

  fileprivate func pieces(of length: Int) -> [Matrix] {
    guard rows > 0 else { return [self] }
    return stride(from: 0, to: rows, by: length).map { rows($0..<min($0 + length, rows)) }
  }
}
