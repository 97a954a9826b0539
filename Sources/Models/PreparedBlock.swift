public import Tensors

/// Where a sequence stands inside a decoder block: before the linears of one input group.
public struct BlockState: Sendable {
  /// Index of the group whose input is at hand; the number of groups once the block is done.
  public package(set) var stage: Int
  /// The residual stream, [tokens × hidden size].
  public package(set) var residual: Matrix
  /// What the group's linears read, [tokens × features]; `nil` once the block is done.
  public package(set) var input: Matrix?
}

/// A decoder block with its weights expanded: the only thing that runs.
///
/// The forward pass goes in stages, one per input group, so that calibration can stop before a group, change its weights and go on from
/// there instead of starting over.
public struct PreparedBlock: Sendable {
  private let description: BlockDescription
  private let norms: [String: [Float]]
  private let weights: [LinearName: Matrix]
  private let biases: [LinearName: [Float]]
  private let inputQuantizations: [LinearName: InputQuantization]
  private let cache: CacheQuantization?
  private let rotary: RotaryTable

  /// Expands the weights that the given stages need.
  ///
  /// - Parameters:
  ///   - stages: groups to be computed, by index; `nil` for the whole block.
  ///   - positions: the longest sequence that will be run.
  /// - Precondition: `block` is a decoder block.
  public init(_ block: Block, stages: Range<Int>? = nil, positions: Int) {
    guard let description = block.description else { preconditionFailure("only decoder blocks run in stages") }
    let groups = block.inputGroups
    let needed = groups[stages ?? groups.indices].flatMap(\.linears)
    self.description = description
    norms = block.norms
    weights = Dictionary(uniqueKeysWithValues: needed.map { ($0, block[$0].weight.dense()) })
    biases = Dictionary(uniqueKeysWithValues: needed.compactMap { name in block[name].bias.map { (name, $0) } })
    inputQuantizations = Dictionary(
      uniqueKeysWithValues: needed.compactMap { name in block[name].inputQuantization.map { (name, $0) } })
    cache = block.cache
    rotary = RotaryTable(description.attention.rotary, headSize: description.attention.headSize, positions: positions)
  }

  /// The outputs of linears that read the same input, which is quantized once for all that agree on how.
  private func apply(_ names: LinearName..., to input: Matrix) -> [Matrix] {
    var quantized: [InputQuantization: Matrix] = [:]
    return names.map { name in
      guard let weight = weights[name] else { preconditionFailure("\(name) was not prepared") }
      var seen = input
      if let quantization = inputQuantizations[name] {
        seen = quantized[quantization] ?? quantization.rounded(input)
        quantized[quantization] = seen
      }
      var output = seen.times(transposed: weight)
      if let bias = biases[name] { output.add(row: bias) }
      return output
    }
  }

  private func apply(_ name: LinearName, _ input: Matrix) -> Matrix { apply(name, to: input)[0] }

  private func normalize(_ states: Matrix, by name: String) -> Matrix {
    states.rmsNormalized(weight: norms[name]!, epsilon: description.normEpsilon)
  }

  /// The state before the first group.
  public func start(_ hidden: Matrix) -> BlockState {
    BlockState(stage: 0, residual: hidden, input: normalize(hidden, by: BlockDescription.attentionNorm))
  }

  /// The state before group `stage`, taken up again from what was kept of it.
  ///
  /// - Parameter input: the group's input; may be left out where it is only the normalised residual.
  package func resume(stage: Int, residual: Matrix, input: Matrix?) -> BlockState {
    var state = BlockState(stage: stage, residual: residual, input: input)
    switch stage {
    case 0 where input == nil: state.input = normalize(residual, by: BlockDescription.attentionNorm)
    case 2 where input == nil: state.input = normalize(residual, by: BlockDescription.feedForwardNorm)
    default: precondition(input != nil, "the input of group \(stage) does not follow from the residual alone")
    }
    return state
  }

  /// Whether a group's input follows from the residual stream alone, so that it need not be kept.
  package static func inputFollowsFromResidual(stage: Int) -> Bool { stage == 0 || stage == 2 }

  /// Computes one group and what follows it, up to the next group's input.
  public func advance(_ state: inout BlockState) { advance(&state, attending: attention) }

  /// The same with attention computed elsewhere, as a run through a cache does.
  ///
  /// - Parameter attention: from the normalised input, [tokens × hidden size], to what the output projection reads.
  package func advance(_ state: inout BlockState, attending attention: (Matrix) -> Matrix) {
    guard let input = state.input else { preconditionFailure("the block is done") }
    switch state.stage {
    case 0: state.input = attention(input)
    case 1:
      state.residual.add(apply("self_attn.o_proj", input))
      state.input = normalize(state.residual, by: BlockDescription.feedForwardNorm)
    case 2:
      let outputs = apply("mlp.gate_proj", "mlp.up_proj", to: input)
      var gate = outputs[0]
      let up = outputs[1]
      switch description.feedForward.activation {
      case .silu: gate.siluGate(up)
      case .geluTanh: gate.geluTanhGate(up)
      }
      state.input = gate
    default:
      state.residual.add(apply("mlp.down_proj", input))
      state.input = nil
    }
    state.stage += 1
  }

  private func attention(_ input: Matrix) -> Matrix {
    var (queries, keys, values) = attentionInputs(input)
    if let cache {
      cache.key.round(&keys)
      cache.value.round(&values)
    }
    return description.attention.attend(queries: queries, keys: keys, values: values)
  }

  /// Queries, keys and values as attention and its cache see them, for the input of the first group.
  package func attentionInputs(_ input: Matrix) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    var (queries, keys, values) = projections(input)
    rotary.rotate(&queries, heads: description.attention.heads)
    rotary.rotate(&keys, heads: description.attention.keyValueHeads)
    return (queries, keys, values)
  }

  /// The rotary embedding of rows that stand at the given positions.
  package func rotate(_ states: inout Matrix, heads: Int, positions: [Int]) {
    rotary.rotate(&states, heads: heads) { positions[$0] }
  }

  /// Queries, keys and values without their positions.
  package func projections(_ input: Matrix) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    let attention = description.attention
    let outputs = apply("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", to: input)
    var queries = outputs[0]
    var keys = outputs[1]
    if attention.normalizesQueriesAndKeys {
      queries = normalizeHeads(queries, by: "self_attn.q_norm")
      keys = normalizeHeads(keys, by: "self_attn.k_norm")
    }
    return (queries, keys, outputs[2])
  }

  /// Normalises every head of every row; heads lie one after the other, so they are the rows of a narrower matrix.
  private func normalizeHeads(_ states: Matrix, by name: String) -> Matrix {
    let size = description.attention.headSize
    let heads = Matrix(rows: states.elements.count / size, columns: size, elements: states.elements)
    return Matrix(rows: states.rows, columns: states.columns, elements: normalize(heads, by: name).elements)
  }

  /// The whole block: hidden states in, hidden states out, [tokens × hidden size] both.
  public func forward(_ hidden: Matrix) -> Matrix {
    var state = start(hidden)
    while state.input != nil { advance(&state) }
    return state.residual
  }
}

extension Block {
  /// What the linears of the head read: the hidden states, normalised.
  package func headInput(_ hidden: Matrix) -> Matrix {
    guard kind == .head, let norm = norms.values.first else { preconditionFailure("only the head has a final norm") }
    return hidden.rmsNormalized(weight: norm, epsilon: normEpsilon)
  }
}

/// The token embedding, ready to be looked up.
package struct PreparedEmbedding: Sendable {
  private let lookup: @Sendable (Int) -> [Float]
  private let rows: Int
  private let columns: Int

  package init(_ weight: any Weight) {
    rows = weight.rows
    columns = weight.columns
    if let stored = weight as? StoredWeight {
      // Rows are read where they are mapped: the table of a large vocabulary is never expanded.
      lookup = { stored.tensor.floats(rows: $0..<$0 + 1) }
    } else if let blocks = weight as? BlockQuantizedMatrix {
      lookup = { blocks.dense(rows: $0..<$0 + 1).elements }
    } else {
      let table = weight.dense()
      lookup = { Array(table.elements[$0 * table.columns..<($0 + 1) * table.columns]) }
    }
  }

  /// [tokens × hidden size].
  package func callAsFunction(_ tokens: [Int32]) throws(TokenOutOfRange) -> Matrix {
    var elements: [Float] = []
    elements.reserveCapacity(tokens.count * columns)
    for token in tokens {
      guard (0..<rows).contains(Int(token)) else { throw TokenOutOfRange(token: token, vocabularySize: rows) }
      elements += lookup(Int(token))
    }
    return Matrix(rows: tokens.count, columns: columns, elements: elements)
  }
}

/// A token id that the model has no embedding for.
public struct TokenOutOfRange: Error, Equatable, Sendable, CustomStringConvertible {
  public let token: Int32
  public let vocabularySize: Int

  public init(token: Int32, vocabularySize: Int) {
    self.token = token
    self.vocabularySize = vocabularySize
  }

  public var description: String {
    "token id \(token) is outside the model's vocabulary of \(vocabularySize); was the text tokenized for another model?"
  }
}
