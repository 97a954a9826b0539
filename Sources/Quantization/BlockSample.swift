import Models
import Passes
import Tensors

/// A few calibration tokens before every input group of a block: what changes to the block are judged by.
///
/// Attention needs whole contexts, so its inputs are the beginnings of some sequences, which under causality come out as they would in the
/// whole. Everything after it works token by token, so there tokens are taken from all sequences alike.
struct BlockSample {
  /// Of the inputs of every group, over all tokens of all sequences given.
  let magnitudes: [InputMagnitude]
  private let description: BlockDescription
  /// By group, in pieces that may be computed at the same time: [tokens × inputs].
  private let inputs: [[Matrix]]
  /// The residual stream before the block, of the same sequences that attention sees.
  private let beginnings: [Matrix]
  private static let contextLength = 256
  private static let pieceLength = 128

  /// - Parameters:
  ///   - sequences: what flows into the block, [tokens × hidden size] each; at least one.
  ///   - tokens: how many to keep; at least one of every sequence is kept.
  init(of block: Block, sequences: [Matrix], tokens: Int) {
    guard let description = block.description else { preconditionFailure("only decoder blocks run in stages") }
    self.description = description
    let stages = description.inputGroups.count
    let prepared = PreparedBlock(block, stages: 0..<stages - 1, positions: sequences.map(\.rows).max() ?? 0)
    let share = max(1, tokens / sequences.count)
    let runs = Parallel.map(sequences.count) { index in
      var state = prepared.start(sequences[index])
      var run: [(magnitude: InputMagnitude, kept: Matrix)] = []
      while let input = state.input {
        var magnitude = InputMagnitude(features: input.columns)
        magnitude.update(input)
        run.append((magnitude, input.spread(share)))
        guard state.stage < stages - 1 else { break }
        prepared.advance(&state)
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
    inputs =
      [beginnings.map { prepared.start($0).input! }]
      + (1..<stages).map { stage in Matrix(stacking: runs.map { $0[stage].kept }).pieces(of: Self.pieceLength) }
  }

  /// What the part of the block from group `stage` on adds to the residual stream, for each piece of the group's inputs.
  ///
  /// - Parameter scale: what every input is divided by, by column.
  func contributions(of block: Block, from stage: Int, dividedBy scale: [Float]? = nil) -> [Matrix] {
    let end = description.subBlocks.first { $0.contains(stage) }!.upperBound
    let inputs = inputs[stage]
    let prepared = PreparedBlock(block, stages: stage..<end, positions: Self.contextLength)
    let inverse = scale.map { $0.map { 1 / $0 } }
    return Parallel.map(inputs.count) { index in
      var input = inputs[index]
      if let inverse { input.scaleColumns(by: inverse) }
      var state = prepared.resume(stage: stage, residual: Matrix(rows: input.rows, columns: description.hiddenSize), input: input)
      while state.stage < end { prepared.advance(&state) }
      return state.residual
    }
  }

  /// What the whole block makes of the beginnings of some sequences.
  func outputs(of block: Block) -> [Matrix] {
    let prepared = PreparedBlock(block, positions: Self.contextLength)
    return Parallel.map(beginnings.count) { prepared.forward(beginnings[$0]) }
  }

  /// ‖`outputs` − `reference`‖² / ‖`reference` − the block's input‖², what of a block's work is lost.
  func relativeLoss(ofOutputs outputs: [Matrix], against reference: [Matrix]) -> Double {
    Self.distance(outputs, reference) / max(Self.distance(reference, beginnings), .leastNonzeroMagnitude)
  }

  /// The tokens kept of a group's inputs, divided by `scale`: [tokens × inputs].
  func kept(_ stage: Int, dividedBy scale: [Float]) -> Matrix {
    var kept = Matrix(stacking: inputs[stage])
    kept.scaleColumns(by: scale.map { 1 / $0 })
    return kept
  }

  /// ‖a − b‖², or ‖a‖² without b.
  static func distance(_ a: [Matrix], _ b: [Matrix]? = nil) -> Double {
    a.indices.reduce(0) { sum, index in
      let count = a[index].elements.count
      return sum
        + a[index].withUnsafeElements { left in
          b.map { $0[index].withUnsafeElements { Kernel.squaredDistance(left, $0, count: count) } }
            ?? Kernel.squaredDistance(left, nil, count: count)
        }
    }
  }
}

extension Matrix {
  /// At most `count` rows, evenly spread.
  fileprivate func spread(_ count: Int) -> Matrix {
    guard count < rows else { return self }
    return Matrix(stacking: (0..<count).map { rows($0 * rows / count..<$0 * rows / count + 1) })
  }

  fileprivate func pieces(of length: Int) -> [Matrix] {
    stride(from: 0, to: rows, by: length).map { rows($0..<min($0 + length, rows)) }
  }
}
