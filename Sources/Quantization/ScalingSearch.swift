import Models
import Passes
import Tensors

/// Chooses among scales by what quantization then loses at the output of attention or of the feed-forward layer.
struct ScalingSearch {
  struct Candidate {
    /// One number per channel of the producer.
    var scale: [Float]
    /// What the report says of it.
    var metrics: [String: Double]
  }

  struct Choice {
    /// The block with the scale moved, nothing rounded.
    var block: Block
    /// `nil` where no candidate lost less than no scaling at all.
    var candidate: Candidate?
    /// What the consumers' inputs are divided by, by column.
    var factors: [Float]
    /// Of the residual stream, without scaling and with what was chosen.
    var unscaledLoss: Double
    var loss: Double
  }

  let sample: BlockSample
  let preview: QuantizerPreview

  /// - Returns: `nil` where nothing that reads the scaled input will be quantized.
  func choose(_ scaling: Scaling, among candidates: [Candidate], for block: Block) throws -> Choice? {
    guard scaling.consumers.contains(where: { preview.quantizer(of: $0, in: block) != nil }) else { return nil }
    let stage = stage(of: scaling, in: block)
    let reference = sample.contributions(of: block, from: stage)
    let none = [Float](repeating: 1, count: scaling.columns)
    let unscaled = try loss(of: block, scaling, factors: none, against: reference)
    var best = Choice(block: block, candidate: nil, factors: none, unscaledLoss: unscaled, loss: unscaled)
    for candidate in candidates {
      try Task.checkCancellation()
      var scaled = block
      let factors = scaling.apply(candidate.scale, to: &scaled)
      let loss = try loss(of: scaled, scaling, factors: factors, against: reference)
      if loss < best.loss { (best.block, best.candidate, best.factors, best.loss) = (scaled, candidate, factors, loss) }
    }
    return best
  }

  /// The loss once the consumers are rounded.
  func loss(of block: Block, _ scaling: Scaling, factors: [Float], against reference: [Matrix]? = nil) throws -> Double {
    let stage = stage(of: scaling, in: block)
    var rounded = block
    try preview.round(scaling.consumers, of: &rounded, input: sample.magnitudes[stage].divided(by: factors))
    let reference = reference ?? sample.contributions(of: block, from: stage, dividedBy: factors)
    let outputs = sample.contributions(of: rounded, from: stage, dividedBy: factors)
    return sample.loss(outputs, against: reference, from: stage)
  }

  /// The loss of the whole block once everything is rounded.
  ///
  /// - Parameters:
  ///   - factors: what the inputs of groups are divided by; none for those that are not.
  ///   - reference: the outputs of the block as it was.
  func wholeLoss(of block: Block, factors: [Int: [Float]], against reference: [Matrix]) throws -> Double {
    var rounded = block
    for (stage, group) in block.inputGroups.enumerated() {
      let input = sample.magnitudes[stage]
      try preview.round(group.linears, of: &rounded, input: factors[stage].map(input.divided(by:)) ?? input)
    }
    // A trial may overflow; it has then lost.
    guard let outputs = try? sample.outputs(of: rounded) else { return .infinity }
    return sample.loss(ofOutputs: outputs, against: reference)
  }

  /// The group whose input is scaled, whole.
  func stage(of scaling: Scaling, in block: Block) -> Int { block.inputGroups.firstIndex(of: scaling.input)! }

  /// All groups whose inputs are scaled, or parts of them.
  func stages(of scaling: Scaling, in block: Block) -> [Int] {
    let consumers = Set(scaling.consumers)
    return block.inputGroups.indices.filter { !consumers.isDisjoint(with: block.inputGroups[$0].linears) }
  }
}

/// A scale was to be moved into or out of a linear that is quantized already.
public struct AlreadyQuantized: Error, Equatable, Sendable, CustomStringConvertible {
  public let layer: String
  public var description: String { "\(layer) is quantized already; scales have to be moved before that" }
}

extension PlannedLinear {
  /// - Parameter moves: whether a scale is to be moved.
  /// - Throws: `InvalidOption` where a linear that would change with it holds codes by then.
  func checkUnquantized(
    in description: ModelDescription, moves: (Scaling, BlockDescription) -> Bool
  ) throws(InvalidOption) {
    guard weights != nil || factorNumbers != nil, let block = description.blocks.first(where: { name.hasPrefix($0.prefix) }) else { return }
    let own = LinearName(rawValue: String(name.dropFirst(block.prefix.count)))
    let changes = block.scalings.contains { scaling in
      let isProducer = if case .linear(own) = scaling.producer { true } else { false }
      return (isProducer || scaling.consumers.contains(own)) && moves(scaling, block)
    }
    guard changes else { return }
    throw InvalidOption(
      "passes", "\(name) is stored as \(scheme) already, and scales have to be moved before that; start from the model as it was before")
  }
}

extension LayerSelector {
  /// Whether all that would read a scaled input may be scaled. What decides by a scaled input goes with the others.
  func moves(_ scaling: Scaling, in block: BlockDescription) -> Bool {
    scaling.consumers.allSatisfy { block.namedOnly.contains($0) || contains(block.prefix + $0.rawValue) }
  }
}

extension Scaling {
  /// - Throws: `AlreadyQuantized` where a linear that would change holds codes.
  func checkUnquantized(in block: Block) throws(AlreadyQuantized) {
    var names = consumers
    if case .linear(let name) = producer { names.append(name) }
    for name in names where block[name].weight is QuantizedMatrix { throw AlreadyQuantized(layer: block.fullName(of: name)) }
  }
}
