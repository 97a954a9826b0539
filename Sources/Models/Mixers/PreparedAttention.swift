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
    rotate(&queries, &keys)
    if description.normalizesRotated { normalize(&queries, &keys) }
    scaleQueries(&queries)
    return (queries, keys, values)
  }

  /// The rotary embedding of a whole sequence; nothing where the block has none.
  ///
  /// - Parameter isBack: whether it is undone, which is also the way of gradients.
  func rotate(_ queries: inout Matrix, _ keys: inout Matrix, isBack: Bool = false) {
    guard var table = rotary?.table(for: queries.rows) else { return }
    if isBack { table = table.inverted }
    table.rotate(&queries, heads: description.heads, headSize: description.headSize)
    table.rotate(&keys, heads: description.keyValueHeads, headSize: description.headSize)
  }

  /// Multiplies queries by what depends on where they stand, which is the way of their gradients, too.
  ///
  /// - Parameter position: where a row stands; row t at t, unless told otherwise.
  func scaleQueries(_ queries: inout Matrix, position: (Int) -> Int = { $0 }) {
    guard let scale = description.queryScale else { return }
    queries.scaleRows(by: (0..<queries.rows).map { scale.factor(at: position($0)) })
  }

  /// Queries, keys and values without their positions, from the outputs of the projections.
  private func separated(_ made: [Matrix]) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    var (queries, keys, values) = description.split(made)
    if !description.normalizesRotated { normalize(&queries, &keys) }
    if description.normalizesValues { values = normalizedHeads(values, weight: Array(repeating: 1, count: description.headSize)) }
    return (queries, keys, values)
  }

  /// What normalises queries and keys, where anything does.
  private func normalize(_ queries: inout Matrix, _ keys: inout Matrix) {
    normalize(&queries, by: description.queryNorm)
    normalize(&keys, by: description.keyNorm)
  }

  private func normalize(_ states: inout Matrix, by name: String) {
    switch description.queryKeyNorm {
    case nil: break
    case .whole: states = parts.norm.apply(states, weight: normWeight(name, count: states.columns), bias: parts.normBiases[name])
    case .head:
      states = normalizedHeads(states, weight: normWeight(name, count: description.headSize), bias: parts.normBiases[name])
    }
  }

  /// What one of the norms multiplies by: ones where it has no weight.
  func normWeight(_ name: String, count: Int) -> [Float] {
    description.hasNormWeights ? parts.norms[name]! : Array(repeating: 1, count: count)
  }

  /// Normalises every head of every row; heads lie one after the other, so they are the rows of a narrower matrix.
  private func normalizedHeads(_ states: Matrix, weight: [Float], bias: [Float]? = nil) -> Matrix {
    let size = description.headSize
    let heads = Matrix(rows: states.elements.count / size, columns: size, elements: states.elements)
    return Matrix(rows: states.rows, columns: states.columns, elements: parts.norm.apply(heads, weight: weight, bias: bias).elements)
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

  /// Queries at the given positions, as attention sees them: rotated, normalised where that comes last, and of the length they have there.
  ///
  /// - Precondition: as of `rotate(_:heads:positions:)`.
  package func place(queries: inout Matrix, positions: [Int]) {
    rotate(&queries, heads: description.heads, positions: positions)
    if description.normalizesRotated { normalize(&queries, by: description.queryNorm) }
    scaleQueries(&queries) { positions[$0] }
  }

  /// Keys at the given positions, as attention sees them.
  ///
  /// - Precondition: as of `rotate(_:heads:positions:)`.
  package func place(keys: inout Matrix, positions: [Int]) {
    rotate(&keys, heads: description.keyValueHeads, positions: positions)
    if description.normalizesRotated { normalize(&keys, by: description.keyNorm) }
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
