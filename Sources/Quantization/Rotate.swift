public import Models
public import Passes
import Tensors

/// Rotates the hidden states and the values of attention by orthogonal matrices that are folded into the weights: the model computes what
/// it computed, and weights and activations lose their outliers (QuaRot, Ashkboos et al. 2024; SpinQuant, Liu et al. 2024).
///
/// `hidden` is R1 of SpinQuant: every norm's weight moves into the linears after it, then the embedding and all that adds to the residual
/// stream is rotated, and all that reads it is rotated back. `values` is R2: one matrix per key-value head between the value and the output
/// projection. Neither needs anything of a runtime. Deviations: R2 differs between the key-value heads of a layer; matrices are drawn, not
/// learned; the rotations that act while the model runs (R3, R4) are left out.
public struct Rotate: Pass {
  public static let name = "rotate"
  public static let summary = "rotate hidden states and values by orthogonal matrices folded into the weights (QuaRot, SpinQuant R1 and R2)"

  public enum Choice: String, Sendable, Codable, CaseIterable {
    /// A Hadamard matrix with random signs.
    case hadamard
    /// Uniform over all orthogonal matrices.
    case random
    case none

    func matrix(size: Int, using random: inout some RandomNumberGenerator) -> OrthogonalMatrix? {
      switch self {
      case .hadamard: .hadamard(size: size, using: &random)
      case .random: .random(size: size, using: &random)
      case .none: nil
      }
    }
  }

  public var hidden = Choice.hadamard
  public var values = Choice.hadamard

  public init() {}

  private enum CodingKeys: String, CodingKey { case hidden, values }

  public var usesCalibration: Bool { false }
  public var isExact: Bool { true }
  public var changesHiddenBasis: Bool { hidden != .none }
  public var analyses: [any Analysis] { [HiddenRotation(choice: hidden)] }

  public func validate() throws(InvalidOption) {
    guard hidden != .none || values != .none else { throw InvalidOption("hidden", "none, and values none: nothing is left to rotate") }
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard linear.storedBits >= linear.rows * linear.columns * linear.storageType.bitCount else {
      throw Self.refusal(of: linear.name, stored: linear.scheme)
    }
    var planned = linear
    planned.isRewritten = linear.isRewritten || hidden != .none || !linear.isEnd
    return planned
  }

  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear {
    if hidden != .none, let reason = description.residualObstacle {
      throw InvalidOption("hidden", "\(reason), so hidden states cannot be rotated exactly; set it to none and rotate values alone")
    }
    if values != .none, let reason = description.valueObstacle {
      throw InvalidOption("values", "\(reason); set it to none and rotate hidden states alone")
    }
    return try plan(linear)
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    let matrix = context.answer(to: HiddenRotation(choice: hidden))
    let block = part as? Block
    let turns = block.map { self.turns(of: $0, hidden: matrix, context) } ?? self.turns(ofEnd: part, hidden: matrix)
    if let block, block.cache != nil, !turns.isEmpty {
      throw InvalidOption("values", "\(block.name) has fixed cache scales; put rotate before what sets them")
    }
    for (name, turn) in turns.sorted(by: { $0.key.rawValue < $1.key.rawValue }) { try apply(turn, to: name, of: &part, context) }
    guard matrix != nil, !(part is Embedding) else { return }
    for norm in block?.description.residualReaders.compactMap(\.norm) ?? Array(part.norms.weights.keys) {
      part.norms[norm] = part.norms[norm]!.map { _ in 1 }
    }
  }

  /// What becomes of a linear: diag(outputs)ᵀ · W · diag(scale) · diag(inputs).
  private struct Turn {
    var inputs: [OrthogonalMatrix] = []
    var scale: [Float]?
    var outputs: [OrthogonalMatrix] = []
    /// The rows that `outputs` turn, in their order; `nil` for all.
    var outputRows: [Int]?
  }

  /// A row of the embedding is a hidden state; a row of the head is multiplied with one, normalised.
  private func turns(ofEnd part: any ModelPart, hidden matrix: OrthogonalMatrix?) -> [LinearName: Turn] {
    guard let matrix else { return [:] }
    let scale = part is Head ? part.norms.weights.values.first : nil
    return part.linears.mapValues { _ in Turn(inputs: [matrix], scale: scale) }
  }

  private func turns(of block: Block, hidden matrix: OrthogonalMatrix?, _ context: PassContext) -> [LinearName: Turn] {
    let description = block.description
    var turns: [LinearName: Turn] = [:]
    if let matrix {
      for (norm, group) in description.residualReaders {
        for name in group.linears { turns[name, default: Turn()].inputs = [matrix] }
        for name in group.linears { turns[name, default: Turn()].scale = norm.flatMap { block.norms[$0] } }
      }
      for name in description.residualWriters { turns[name, default: Turn()].outputs = [matrix] }
    }
    if values != .none, let heads = description.heads, let path = description.valuePath {
      var random = context.randomness(for: path.maker, in: block)
      let own = path.rows.compactMap { _ in values.matrix(size: heads.size, using: &random) }
      turns[path.maker, default: Turn()].outputs = own
      turns[path.maker]!.outputRows = path.rows.flatMap { Array($0) }
      turns[path.reader, default: Turn()].inputs = (0..<heads.queries).map { own[$0 / heads.group] }
    }
    return turns
  }

  private func apply(_ turn: Turn, to name: LinearName, of part: inout any ModelPart, _ context: PassContext) throws {
    guard part[name].weight is StoredWeight || part[name].weight is Matrix else {
      throw Self.refusal(of: part.fullName(of: name), stored: "\(type(of: part[name].weight))")
    }
    let original = part[name].weight.dense()
    var weight = original
    if !turn.inputs.isEmpty { weight = weight.times(turn.inputs, scaling: turn.scale) }
    if !turn.outputs.isEmpty {
      let rows = turn.outputRows ?? Array(0..<weight.rows)
      weight.set(weight.rows(at: rows).multiplied(onTheLeftByTransposeOf: turn.outputs), atRows: rows)
      if var bias = part[name].bias {
        let turned = Matrix(rows: 1, columns: rows.count, elements: rows.map { bias[$0] }).times(turn.outputs).elements
        for (row, value) in zip(rows, turned) { bias[row] = value }
        part[name].bias = bias
      }
    }
    part[name].weight = weight
    context.record(name, in: part, ["incoherence_before": original.incoherence, "incoherence_after": weight.incoherence])
    for matrix in turn.inputs + turn.outputs {
      guard let order = matrix.hadamardOrder, order < matrix.size else { continue }
      try context.recordFallback(
        name, in: part,
        "no Hadamard matrix of order \(matrix.size) is known here: blocks of \(order) on the diagonal; \"random\" mixes all")
      break
    }
  }

  private static func refusal(of name: String, stored: String) -> InvalidOption {
    InvalidOption("hidden", "\(name) is stored as \(stored), and rotating would undo that; put rotate before what compresses")
  }
}

/// The one matrix that rotates the hidden states of a whole model; `nil` for none.
struct HiddenRotation: Analysis {
  let choice: Rotate.Choice

  func answer(for model: Model, in context: AnalysisContext) async throws -> OrthogonalMatrix? {
    var random = KeyedRandomness(seed: context.seed, key: Rotate.name, "hidden")
    return choice.matrix(size: model.description.hiddenSize, using: &random)
  }
}

extension Matrix {
  /// max |w| over the root mean square: how far the largest weight stands out (QuIP, Chee et al. 2023, definition 1, times √columns).
  fileprivate var incoherence: Double {
    let parts: [(square: Double, largest: Float)] = Parallel.map(rows) { row in
      withUnsafeElements { elements in
        let part = UnsafeBufferPointer(start: elements + row * columns, count: columns)
        let range = Kernel.range(part)
        return (
          square: Kernel.squaredDistance(part.baseAddress!, nil, count: columns), largest: max(-range.lowerBound, range.upperBound)
        )
      }
    }
    let square = parts.reduce(0) { $0 + $1.square }
    guard square > 0 else { return 0 }
    return Double(parts.reduce(0) { max($0, $1.largest) }) / (square / Double(elements.count)).squareRoot()
  }
}

extension Pass where Self == Rotate {
  /// Rotations, for use in code: `Pipeline([.rotate(), .gptq()])`.
  public static func rotate(hidden: Rotate.Choice = .hadamard, values: Rotate.Choice = .hadamard) -> Rotate {
    var pass = Rotate()
    pass.hidden = hidden
    pass.values = values
    return pass
  }
}
