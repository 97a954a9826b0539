/// Everything about a transformer, decoder or encoder, that is data rather than weights.
public struct ModelDescription: Sendable, Equatable {
  /// A table of learned positions, added to the embedding.
  public struct Positions: Sendable, Equatable {
    public var module: String
    public var count: Int
    /// Row of the first position.
    public var offset: Int

    public init(module: String, count: Int, offset: Int = 0) {
      self.module = module
      self.count = count
      self.offset = offset
    }
  }

  /// A table of kinds of tokens, such as first and second sentence; every token is taken to be of the first.
  public struct TokenTypes: Sendable, Equatable {
    public var module: String
    public var count: Int

    public init(module: String, count: Int) {
      self.module = module
      self.count = count
    }
  }

  public var vocabularySize: Int
  public var hiddenSize: Int
  /// Module of the token embedding, such as `model.embed_tokens`.
  public var embedding: String
  /// What looked-up rows are multiplied by, rounded to the type of the table.
  public var embeddingScale: Float = 1
  public var positions: Positions?
  public var tokenTypes: TokenTypes?
  /// Module of a norm on the embedding, once everything is added.
  public var embeddingNorm: String?
  /// Module of the norm behind the last block; `nil` where there is none.
  public var finalNorm: String?
  public var norm: NormDescription
  /// Whether a head makes logits of the hidden states; an encoder's are its output.
  public var hasLogits = true
  /// Module of the head; `nil` when the head is the embedding, or there is none.
  public var head: String?
  /// Whether a head of its own adds a number to each logit (Phi-3.5-MoE).
  public var hasHeadBias = false
  /// What a head of its own is called, should the model get one.
  public var ownHead = "lm_head"
  /// What logits are multiplied by.
  public var logitScale: Float = 1
  /// c of c · tanh(logit / c); `nil` for logits as they are.
  public var logitCap: Float?
  /// Positions the model was made for, where its configuration says.
  public var maximumPositions: Int?
  /// What precedes all names where the model was saved inside a larger one, such as `bert.`.
  public var wrappingPrefix: String?
  /// Other last parts of linears' names under which some savers store them, by the family's own.
  public var otherSpellings: [String: String] = [:]
  public var blocks: [BlockDescription]

  public init(
    vocabularySize: Int, hiddenSize: Int, embedding: String = "model.embed_tokens", finalNorm: String? = "model.norm",
    head: String? = "lm_head", norm: NormDescription, maximumPositions: Int? = nil, blocks: [BlockDescription]
  ) {
    self.vocabularySize = vocabularySize
    self.hiddenSize = hiddenSize
    self.embedding = embedding
    self.finalNorm = finalNorm
    self.head = head
    self.norm = norm
    self.maximumPositions = maximumPositions
    self.blocks = blocks
  }

  public init(
    vocabularySize: Int, hiddenSize: Int, embedding: String = "model.embed_tokens", finalNorm: String? = "model.norm",
    head: String? = "lm_head", normEpsilon: Float, maximumPositions: Int? = nil, blocks: [BlockDescription]
  ) {
    self.init(
      vocabularySize: vocabularySize, hiddenSize: hiddenSize, embedding: embedding, finalNorm: finalNorm, head: head,
      norm: NormDescription(epsilon: normEpsilon), maximumPositions: maximumPositions, blocks: blocks)
  }

  public var normEpsilon: Float {
    get { norm.epsilon }
    set { norm.epsilon = newValue }
  }
}

extension ModelDescription {
  /// The same model whose tensors have another prefix in common.
  func renamed(from old: String, to new: String) -> ModelDescription {
    func moved(_ name: String) -> String { name.hasPrefix(old) ? new + name.dropFirst(old.count) : name }
    var renamed = self
    renamed.embedding = moved(embedding)
    renamed.embeddingNorm = embeddingNorm.map(moved)
    renamed.finalNorm = finalNorm.map(moved)
    if let tokenTypes { renamed.tokenTypes!.module = moved(tokenTypes.module) }
    if let positions { renamed.positions!.module = moved(positions.module) }
    for index in blocks.indices { renamed.blocks[index].prefix = moved(blocks[index].prefix) }
    return renamed
  }

  /// The same model under names that begin as another's do: the way back from `spelled(as:reader:)`.
  func spelled(like other: ModelDescription) -> ModelDescription {
    let (own, theirs) = (landmark.split(separator: "."), other.landmark.split(separator: "."))
    let common = zip(own.reversed(), theirs.reversed()).prefix { $0 == $1 }.count
    func start(_ parts: [Substring]) -> String { parts.dropLast(common).map { $0 + "." }.joined() }
    var spelled = renamed(from: start(own), to: start(theirs))
    if head != nil, let named = other.head { spelled.head = named }
    return spelled
  }

  /// Whether the head is the embedding.
  public var isTied: Bool { hasLogits && head == nil }

  /// Why some block keeps no key-value cache; `nil` where all do.
  package var cacheObstacle: String? { blocks.lazy.flatMap(\.mixers).compactMap(\.cacheObstacle).first }

  /// Why passes that change attention heads cannot; `nil` where every block's only mixer is attention.
  package var headObstacle: String? {
    for block in blocks {
      if let other = block.mixers.first(where: { !($0 is AttentionDescription) }) {
        return "\(block.prefix)\(other.module) is \(type(of: other).kind), which has no heads of queries, keys and values"
      }
      if block.heads == nil { return "\(block.prefix.dropLast()) has no attention" }
    }
    return nil
  }

  /// A module with a plain weight that every checkpoint of the model holds.
  var landmark: String { finalNorm ?? embeddingNorm ?? embedding }

  /// What may have to be kept of a sequence inside a block, at the stops that states are kept at.
  package var keptValues: Set<BlockValue> {
    blocks.reduce(into: []) { values, block in
      let program = block.program
      for stop in program.stops where program.anchor(ofStop: stop) == stop { values.formUnion(program.kept(atStop: stop)) }
    }
  }

  /// Matrices of hidden states that calibration keeps beside a group's input.
  package var keptStates: Int {
    blocks.contains { $0.isParallel || $0.feedForward?.mixture?.ownNorms != nil } ? 3 : 2
  }

  /// Names and shapes of all tensors, as the family's checkpoints store them without compression.
  package var tensorShapes: [(name: String, shape: [Int])] {
    blocks.flatMap { $0.tensorShapes(stacks: $0.expertStacks, biases: $0.expertStacks) } + endShapes
  }

  /// The same with tensors for each expert, whatever the family's checkpoints store together.
  package var tensorShapesByExpert: [(name: String, shape: [Int])] {
    blocks.flatMap { $0.tensorShapes(stacks: [], biases: []) } + endShapes
  }

  /// Those outside the blocks.
  var endShapes: [(name: String, shape: [Int])] {
    var shapes: [(name: String, shape: [Int])] = [(embedding + ".weight", [vocabularySize, hiddenSize])]
    if let positions { shapes.append((positions.module + ".weight", [positions.count + positions.offset, hiddenSize])) }
    if let tokenTypes { shapes.append((tokenTypes.module + ".weight", [tokenTypes.count, hiddenSize])) }
    for module in [embeddingNorm, finalNorm] { if let module { shapes += norm.tensorShapes(of: module, size: hiddenSize) } }
    if let head { shapes.append((head + ".weight", [vocabularySize, hiddenSize])) }
    if let head, hasHeadBias { shapes.append((head + ".bias", [vocabularySize])) }
    return shapes
  }
}

extension BlockDescription {
  /// Names and shapes of the block's tensors, as a checkpoint without compression stores them.
  ///
  /// - Parameters:
  ///   - stacks: the stacks that experts lie in; none for a checkpoint with tensors for each.
  ///   - biases: those whose biases do.
  func tensorShapes(stacks: [ExpertStack], biases: [ExpertStack]) -> [(name: String, shape: [Int])] {
    var shapes: [(name: String, shape: [Int])] = []
    let (stacked, biased) = (Set(stacks.flatMap(\.linears).joined()), Set(biases.flatMap(\.linears).joined()))
    for (name, shape) in linearShapes.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      let module = prefix + name.rawValue
      if !stacked.contains(name) {
        shapes.append((module + ".weight", storesTransposed ? [shape.columns, shape.rows] : [shape.rows, shape.columns]))
      }
      if shape.bias, !biased.contains(name) { shapes.append((module + ".bias", [shape.rows])) }
    }
    shapes += stacks.map { (prefix + $0.name, $0.shape) }
    shapes += biases.compactMap { stack in stack.biasName.map { (prefix + $0, stack.biasShape) } }
    for (name, size) in normSizes {
      shapes.append((prefix + weightName(ofNorm: name), [size]))
      if norm.hasBias { shapes.append((prefix + name + ".bias", [size])) }
    }
    return shapes + parameters.map { (prefix + $0.name, $0.shape) }
  }
}

extension NormDescription {
  fileprivate func tensorShapes(of module: String, size: Int) -> [(name: String, shape: [Int])] {
    [(module + ".weight", [size])] + (hasBias ? [(module + ".bias", [size])] : [])
  }
}
