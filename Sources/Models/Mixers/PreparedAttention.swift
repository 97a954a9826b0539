package import Tensors

/// Softmax attention that runs: on whole sequences by itself, piece by piece through a cache of keys and values.
package struct PreparedAttention: PreparedMixer {
  package let description: AttentionDescription
  /// By head; `nil` where the family has none.
  package let sinks: [Float]?
  let parts: MixerParts
  let rotary: RotaryTables?
  /// For rows in any order, in runs through caches.
  private let placed: RotaryTable?

  init(_ description: AttentionDescription, _ parts: MixerParts) {
    self.description = description
    self.parts = parts
    sinks = description.hasSinks ? parts.parameter(description.sinksName) : nil
    rotary = description.rotary.map { RotaryTables($0, headSize: description.headSize, positions: parts.longest) }
    placed = parts.horizon.flatMap { horizon in
      description.rotary.map {
        RotaryTable($0, headSize: description.headSize, positions: parts.longest + horizon, length: parts.longest)
      }
    }
  }

  package func mix(_ made: [Matrix]) -> Matrix {
    var (queries, keys, values) = positioned(made)
    if let cache = parts.cache {
      cache.key.round(&keys)
      cache.value.round(&values)
    }
    var context = description.attend(queries: queries, keys: keys, values: values, sinks: sinks)
    description.gate(&context, by: made)
    return context
  }

  /// Queries, keys and values as attention and its cache see them, from the outputs of the projections.
  func positioned(_ made: [Matrix]) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    var (queries, keys, values) = separated(made)
    if let table = rotary?.table(for: queries.rows) {
      table.rotate(&queries, heads: description.heads, headSize: description.headSize)
      table.rotate(&keys, heads: description.keyValueHeads, headSize: description.headSize)
    }
    return (queries, keys, values)
  }

  /// Queries, keys and values without their positions, from the outputs of the projections.
  private func separated(_ made: [Matrix]) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    var (queries, keys, values) = description.split(made)
    switch description.queryKeyNorm {
    case nil: break
    case .whole:
      queries = normalize(queries, by: description.queryNorm)
      keys = normalize(keys, by: description.keyNorm)
    case .head:
      queries = normalizeHeads(queries, by: description.queryNorm)
      keys = normalizeHeads(keys, by: description.keyNorm)
    }
    return (queries, keys, values)
  }

  private func normalize(_ states: Matrix, by name: String) -> Matrix {
    parts.norm.apply(states, weight: parts.norms[name]!, bias: parts.normBiases[name])
  }

  /// Normalises every head of every row; heads lie one after the other, so they are the rows of a narrower matrix.
  private func normalizeHeads(_ states: Matrix, by name: String) -> Matrix {
    let size = description.headSize
    let heads = Matrix(rows: states.elements.count / size, columns: size, elements: states.elements)
    return Matrix(rows: states.rows, columns: states.columns, elements: normalize(heads, by: name).elements)
  }
}

// MARK: - For caches

extension PreparedAttention {
  /// The rotary embedding of rows that stand at the given positions; nothing where the block has none.
  ///
  /// - Precondition: the block was prepared for a run through caches.
  package func rotate(_ states: inout Matrix, heads: Int, positions: [Int]) {
    precondition(rotary == nil || placed != nil, "the block was not prepared for a run through caches")
    placed?.rotate(&states, heads: heads, headSize: description.headSize) { positions[$0] }
  }

  /// Queries, keys and values without their positions, for a cache, which measures them before anything else does.
  ///
  /// - Parameter made: the outputs of the projections.
  /// - Throws: `NonFiniteActivation` where one of them is not finite.
  package func finiteStates(_ made: [Matrix]) throws(NonFiniteActivation) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    for (linear, output) in zip(description.projections.linears, made) where !output.isFinite {
      throw NonFiniteActivation(block: parts.block, layer: linear.rawValue)
    }
    let states = separated(made)
    guard states.queries.isFinite, states.keys.isFinite else { throw NonFiniteActivation(block: parts.block, layer: "attention") }
    return states
  }

  /// The last step of attention that a cache computes: gates, where there are any.
  ///
  /// - Parameter made: the outputs of the projections.
  package func gate(_ context: inout Matrix, by made: [Matrix]) { description.gate(&context, by: made) }

  /// Keys and values as a cache would store them, from the outputs of the projections.
  ///
  /// - Throws: `NonFiniteActivation` where one of them is not finite.
  func cachedStates(_ made: [Matrix]) throws(NonFiniteActivation) -> (keys: Matrix, values: Matrix) {
    _ = try finiteStates(made)
    let states = positioned(made)
    guard states.keys.isFinite else { throw NonFiniteActivation(block: parts.block, layer: "attention") }
    return (states.keys, states.values)
  }
}
