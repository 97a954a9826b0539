public import Tensors

/// What flows between blocks: token ids into the embedding, hidden states everywhere else.
public enum Activations: Sendable {
  case tokens([Int32])
  /// [tokens × hidden size]
  case hidden(Matrix)
}

/// One unit of the sweep: the embedding, a decoder block, or the head with its final norm.
public struct Block: Sendable {
  public enum Kind: Sendable, Hashable {
    case embedding
    case decoder(index: Int)
    case head
  }

  public internal(set) var kind: Kind
  /// The decoder block's; `nil` at both ends.
  public var description: BlockDescription?
  /// What precedes a linear's name to give its module's full name.
  public internal(set) var prefix: String
  public var linears: [LinearName: Linear]
  /// What the norms multiply by, by their names inside the block; the head has one, and an embedding may, under its name in the whole model.
  /// Where a family stores weights less an offset, the offset is in these.
  public var norms: [String: [Float]]
  /// What the norms add, where they add anything.
  public var normBiases: [String: [Float]]
  /// Tensors that are neither linears nor norms, as they were read, by their names inside the block.
  public var parameters: [String: Tensor]
  /// How the block's keys and values are stored while a runtime generates; `nil` for as they are.
  public var cache: CacheQuantization?
  /// What else becomes of them; runs through a cache obey it, the plain forward pass does not.
  public var cachePolicy: CachePolicy?
  /// How the norms compute.
  public var norm: NormDescription
  /// What the checkpoint stores the norms as.
  public let storageType: DType
  /// What an embedding does besides looking up rows.
  public var embedding = EmbeddingDescription()
  /// An embedding's table of learned positions.
  public var positions: StoredWeight?
  /// An embedding's table of token types.
  public var tokenTypes: StoredWeight?
  /// What the head does to logits.
  public var logits = LogitDescription()
  /// The norms' weights as they were read, less the offset: what is written of those that nobody changed.
  private let storedNorms: [String: [Float]]

  /// - Parameter norms: as the checkpoint stores them.
  public init(
    kind: Kind, description: BlockDescription? = nil, prefix: String = "", linears: [LinearName: Linear], norms: [String: [Float]] = [:],
    normBiases: [String: [Float]] = [:], parameters: [String: Tensor] = [:], cache: CacheQuantization? = nil,
    cachePolicy: CachePolicy? = nil,
    norm: NormDescription = NormDescription(epsilon: 1e-6),
    storageType: DType = .bfloat16
  ) {
    self.kind = kind
    self.description = description
    self.prefix = prefix
    self.linears = linears
    storedNorms = norms
    self.norms = norm.offset == 0 ? norms : norms.mapValues { $0.map { $0 + norm.offset } }
    self.normBiases = normBiases
    self.parameters = parameters
    self.cache = cache
    self.cachePolicy = cachePolicy
    self.norm = norm
    self.storageType = storageType
  }

  /// The linears by shared input, in the order the block computes them. An embedding is a group of its own that reads token ids.
  public var inputGroups: [InputGroup] {
    guard let description else { return linears.keys.sorted { $0.rawValue < $1.rawValue }.map { InputGroup([$0]) } }
    return description.inputGroups
  }

  public var normEpsilon: Float {
    get { norm.epsilon }
    set { norm.epsilon = newValue }
  }

  /// A norm's weight as the checkpoint stores it: less the offset, and exactly what was read where nobody changed it.
  package func storedNorm(_ name: String) -> [Float] {
    guard let weight = norms[name] else { preconditionFailure("the block has no norm \(name)") }
    if let stored = storedNorms[name], stored.map({ $0 + norm.offset }) == weight { return stored }
    return weight.map { $0 - norm.offset }
  }

  /// A norm's weight rounded to what its storage can hold.
  package func rounded(normWeight weight: Float) -> Float { storageType.rounded(weight - norm.offset) + norm.offset }

  /// - Precondition: the block has a linear of this name.
  public subscript(name: LinearName) -> Linear {
    get {
      guard let linear = linears[name] else { preconditionFailure("the block has no linear \(name)") }
      return linear
    }
    set { linears[name] = newValue }
  }

  /// Whether a linear is touched only by passes that are told so by name: the embedding, the head, a router.
  public func isNamedOnly(_ linear: LinearName) -> Bool { description.map { $0.namedOnly.contains(linear) } ?? true }

  /// The same block under another number.
  func moved(to kind: Kind, prefix: String) -> Block {
    var moved = self
    (moved.kind, moved.prefix) = (kind, prefix)
    moved.description?.prefix = prefix
    return moved
  }

  /// Gives back the pages of weights that are still in their files; they come back when they are needed.
  package func releasePages() {
    for linear in linears.values {
      let factors = (linear.weight as? FactoredWeight).map { [$0.input, $0.output] }
      for weight in factors ?? [linear.weight] {
        (weight as? StoredWeight)?.tensor.releasePages()
        (weight as? BlockQuantizedMatrix)?.blocks.releasePages()
      }
    }
  }

  /// A linear's name in the whole model, such as `model.layers.0.mlp.down_proj`.
  public func fullName(of linear: LinearName) -> String { prefix + linear.rawValue }

  /// The block's name in the whole model, such as `model.layers.0`.
  public var name: String {
    switch kind {
    case .embedding: inputGroups.first.map { fullName(of: $0.linears[0]) } ?? "embedding"
    case .decoder: prefix.hasSuffix(".") ? String(prefix.dropLast()) : prefix
    case .head: "head"
    }
  }
}
