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
  /// Weights of the norms, by their names inside the block; the head has one, under its name in the whole model.
  public var norms: [String: [Float]]
  /// How the block's keys and values are stored while a runtime generates; `nil` for as they are.
  public var cache: CacheQuantization?
  /// What else becomes of them; runs through a cache obey it, the plain forward pass does not.
  public var cachePolicy: CachePolicy?
  public var normEpsilon: Float
  /// What the checkpoint stores the norms as.
  public let storageType: DType

  public init(
    kind: Kind, description: BlockDescription? = nil, prefix: String = "", linears: [LinearName: Linear], norms: [String: [Float]] = [:],
    cache: CacheQuantization? = nil, cachePolicy: CachePolicy? = nil, normEpsilon: Float = 1e-6, storageType: DType = .bfloat16
  ) {
    self.kind = kind
    self.description = description
    self.prefix = prefix
    self.linears = linears
    self.norms = norms
    self.cache = cache
    self.cachePolicy = cachePolicy
    self.normEpsilon = normEpsilon
    self.storageType = storageType
  }

  /// The linears by shared input, in the order the block computes them. An embedding is a group of its own that reads token ids.
  public var inputGroups: [InputGroup] {
    guard let description else { return linears.keys.sorted { $0.rawValue < $1.rawValue }.map { InputGroup([$0]) } }
    return description.inputGroups
  }

  /// - Precondition: the block has a linear of this name.
  public subscript(name: LinearName) -> Linear {
    get {
      guard let linear = linears[name] else { preconditionFailure("the block has no linear \(name)") }
      return linear
    }
    set { linears[name] = newValue }
  }

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
