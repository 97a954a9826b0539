/// Attention with grouped key-value heads: sizes, names, and what families do to queries, keys and scores.
public struct AttentionDescription: Sendable, Equatable {
  /// What is normalised of queries and keys.
  public enum QueryKeyNorm: Sendable, Equatable {
    /// Every head on its own, with one weight for all (Qwen3, Gemma 3).
    case head
    /// All heads of a token together (OLMo 2).
    case whole
  }

  public var heads: Int
  public var keyValueHeads: Int
  public var headSize: Int
  /// `nil` where queries and keys are not rotated: learned positions, or none.
  public var rotary: RotaryDescription?
  /// Whether a query sees its own key and those before it; otherwise those behind it, too (encoders).
  public var isCausal: Bool
  /// Keys a query sees, itself included; `nil` for all before it. Of causal attention only.
  public var window: Int?
  /// Positions of a chunk, outside which a query sees no keys; `nil` where sequences are not cut. Of causal attention only (Llama 4).
  public var chunk: Int?
  public var queryKeyNorm: QueryKeyNorm?
  /// Whether queries and keys are normalised behind the rotation instead of before it (Hunyuan).
  public var normalizesRotated = false
  /// Whether what normalises them has weights; otherwise they are divided by their root mean square alone (Llama 4).
  public var hasNormWeights = true
  /// Whether every head's value is divided by its root mean square (Gemma 4).
  public var normalizesValues = false
  /// What queries are multiplied by where they stand; `nil` for nothing.
  public var queryScale: QueryScale?
  /// By head, what a score falls by for every position between a query and a key; `nil` where distance alone costs nothing.
  public var slopes: [Float]?
  /// What products of queries and keys are multiplied by; `nil` for 1/√headSize.
  public var scale: Float?
  /// c of c · tanh(score / c) (Gemma 2); `nil` for scores as they are.
  public var scoreCap: Float?
  public var projections: AttentionProjections
  /// The linear that reads what attention makes of the values.
  public var output: LinearName
  public var hasProjectionBias: Bool
  public var hasOutputBias: Bool
  /// Whether the query linear makes a gate for every head behind its query; attention's output is multiplied by its sigmoid (Qwen3-Next).
  public var hasOutputGate = false
  /// Whether every head has a learned score that no key stands behind: what a query pays to it is lost (Xiao et al. 2024; gpt-oss).
  public var hasSinks = false
  /// What attention's output is multiplied by before it is added (Falcon-H1).
  public var outputScale: Float = 1
  /// Last parts of the names of the norms of queries and keys.
  public var queryNormName = "q_norm"
  public var keyNormName = "k_norm"

  public init(
    heads: Int, keyValueHeads: Int, headSize: Int, rotary: RotaryDescription?, isCausal: Bool = true, window: Int? = nil,
    queryKeyNorm: QueryKeyNorm? = nil, scale: Float? = nil, scoreCap: Float? = nil,
    projections: AttentionProjections = .separate(query: "self_attn.q_proj", key: "self_attn.k_proj", value: "self_attn.v_proj"),
    output: LinearName = "self_attn.o_proj", hasProjectionBias: Bool = false, hasOutputBias: Bool = false
  ) {
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.headSize = headSize
    self.rotary = rotary
    self.isCausal = isCausal
    self.window = window
    self.queryKeyNorm = queryKeyNorm
    self.scale = scale
    self.scoreCap = scoreCap
    self.projections = projections
    self.output = output
    self.hasProjectionBias = hasProjectionBias
    self.hasOutputBias = hasOutputBias
  }

  public var normalizesQueriesAndKeys: Bool { queryKeyNorm != nil }
  /// The module that holds all of it, such as `self_attn`.
  public var module: String { output.rawValue.split(separator: ".").dropLast().joined(separator: ".") }
  package var queryNorm: String { "\(module).\(queryNormName)" }
  package var keyNorm: String { "\(module).\(keyNormName)" }
  package var sinksName: String { "\(module).sinks" }

  /// Why there cannot be fewer heads than there are by changing the linears alone; `nil` where there can.
  package var headObstacle: String? {
    if hasOutputGate { return "the outputs of its heads are gated" }
    if hasSinks { return "every head has a sink" }
    if normalizesValues { return "values are divided by their root mean square" }
    if slopes != nil { return "how fast the scores of a head fall with distance follows from how many heads there are" }
    if case .fused(let name, _) = projections { return "\(name) makes queries, keys and values at once" }
    return queryKeyNorm == .whole ? "queries and keys are normalised over all heads together" : nil
  }

  /// Why there is no key-value cache; `nil` where there is one.
  public var cacheObstacle: String? {
    isCausal ? nil : "its attention sees what comes later, so it runs on whole sequences and keeps no key-value cache"
  }

  /// Query heads that a key-value head serves.
  public var group: Int { heads / keyValueHeads }
}

/// The linears that make queries, keys and values.
public enum AttentionProjections: Sendable, Equatable {
  case separate(query: LinearName, key: LinearName, value: LinearName)
  /// One linear makes keys and values alike: what it puts out is both, before norms and rotation (Gemma 4's global layers).
  case keysAreValues(query: LinearName, key: LinearName)
  /// One linear makes all three.
  case fused(LinearName, FusedLayout)

  public enum FusedLayout: Sendable, Equatable {
    /// All queries, all keys, all values (Phi-3, GPT-2).
    case blocks
    /// For every key-value head its queries, its key, its value (GPT-NeoX, Falcon).
    case groups
  }

  /// In the order they are computed.
  public var linears: [LinearName] {
    switch self {
    case .separate(let query, let key, let value): [query, key, value]
    case .keysAreValues(let query, let key): [query, key]
    case .fused(let name, _): [name]
    }
  }
}

/// Rows of a linear that belong together, such as those of one head.
public struct LinearRows: Sendable, Equatable {
  public var linear: LinearName
  public var rows: Range<Int>
}

extension AttentionDescription {
  /// The rows that make the queries of a head.
  public func queryRows(_ head: Int) -> LinearRows {
    switch projections {
    case .separate(let query, _, _), .keysAreValues(let query, _): LinearRows(linear: query, rows: stretch(hasOutputGate ? 2 * head : head))
    case .fused(let name, .blocks): LinearRows(linear: name, rows: stretch(head))
    case .fused(let name, .groups): LinearRows(linear: name, rows: stretch(head / group * (group + 2) + head % group))
    }
  }

  /// The rows that make the keys of a key-value head.
  public func keyRows(_ head: Int) -> LinearRows {
    switch projections {
    case .separate(_, let key, _), .keysAreValues(_, let key): LinearRows(linear: key, rows: stretch(head))
    case .fused(let name, .blocks): LinearRows(linear: name, rows: stretch(heads + head))
    case .fused(let name, .groups): LinearRows(linear: name, rows: stretch(head * (group + 2) + group))
    }
  }

  /// The rows that make the values of a key-value head.
  public func valueRows(_ head: Int) -> LinearRows {
    switch projections {
    case .separate(_, _, let value), .keysAreValues(_, let value): LinearRows(linear: value, rows: stretch(head))
    case .fused(let name, .blocks): LinearRows(linear: name, rows: stretch(heads + keyValueHeads + head))
    case .fused(let name, .groups): LinearRows(linear: name, rows: stretch(head * (group + 2) + group + 1))
    }
  }

  private func stretch(_ index: Int) -> Range<Int> { index * headSize..<(index + 1) * headSize }

  /// Outputs of every projection, in the order of `projections.linears`.
  var projectionSizes: [Int] {
    switch projections {
    case .separate: [(hasOutputGate ? 2 : 1) * heads * headSize, keyValueHeads * headSize, keyValueHeads * headSize]
    case .keysAreValues: [(hasOutputGate ? 2 : 1) * heads * headSize, keyValueHeads * headSize]
    case .fused: [(heads + 2 * keyValueHeads) * headSize]
    }
  }
}

extension AttentionDescription: TokenMixer {
  public static let kind = "attention"

  public func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape] {
    var shapes: [LinearName: LinearShape] = [:]
    for (name, rows) in zip(projections.linears, projectionSizes) {
      shapes[name] = LinearShape(rows: rows, columns: hiddenSize, bias: hasProjectionBias)
    }
    shapes[output] = LinearShape(rows: hiddenSize, columns: contextSize, bias: hasOutputBias)
    return shapes
  }

  public var norms: [(name: String, size: Int)] {
    switch queryKeyNorm {
    case _ where !hasNormWeights: []
    case nil: []
    case .head: [(queryNorm, headSize), (keyNorm, headSize)]
    case .whole: [(queryNorm, heads * headSize), (keyNorm, keyValueHeads * headSize)]
    }
  }

  public var parameters: [MixerParameter] { hasSinks ? [MixerParameter(sinksName, shape: [heads])] : [] }

  public func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep] {
    let names =
      switch projections {
      case .separate: ["queries", "keys", "values"]
      case .keysAreValues: ["queries", "keys and values"]
      case .fused: ["queries, keys, values"]
      }
    let (made, context) = (names.map(place.value), place.value("context"))
    return [
      .linears(projections.linears, input, into: made), .mix(place.index, made, into: context),
      .linears([self.output], context, into: [output]),
    ]
  }

  public var fusedLinears: [[LinearName]] { [projections.linears] }

  public var contextSize: Int { heads * headSize }

  public func stateSize(tokens: Int) -> Int { 2 * keyValueHeads * headSize * tokens }

  public var gradientObstacle: String? { nil }

  public var absurdity: String? {
    guard heads > 0, headSize > 0, keyValueHeads > 0, heads * headSize <= 1 << 24 else {
      return "\(heads) attention heads of \(headSize) numbers and \(keyValueHeads) for keys and values are not possible"
    }
    guard window.map({ $0 > 0 }) ?? true else { return "attention over a window of no token is not possible" }
    guard chunk.map({ $0 > 0 }) ?? true else { return "attention over chunks of no token is not possible" }
    guard queryScale?.isPossible ?? true else { return "queries cannot grow every \(queryScale?.stretch ?? 0) positions" }
    return nil
  }

  public func prepared(_ parts: MixerParts) -> any PreparedMixer { PreparedAttention(self, parts) }
}
