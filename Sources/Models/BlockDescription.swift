/// One block of a decoder or encoder: token mixers such as attention, and a feed-forward layer, both added to the residual stream, with norms
/// before or behind them, or on the sums.
public struct BlockDescription: Sendable, Equatable {
  /// What precedes the names of the block's tensors, such as `model.layers.0.`.
  public var prefix: String
  public var hiddenSize: Int
  /// How all norms of the block compute.
  public var norm: NormDescription
  public var norms: NormPlacement
  /// What carries something from token to token, side by side; none where the block is a feed-forward layer alone.
  public var mixers: TokenMixers
  /// `nil` where the block is mixers alone.
  public var feedForward: FeedForwardDescription?
  /// Whether both layers read the block's input, instead of the second reading what the first left.
  public var isParallel: Bool
  /// What the layers' outputs are multiplied by before they are added (Granite).
  public var residualScale: Float
  /// A number of the block's own that the residual stream is multiplied by in the end, by its name inside the block; `nil` for nothing
  /// (Gemma 4).
  public var streamScale: String?
  /// Whether the checkpoint stores the blocks' linears as [inputs × outputs] (GPT-2).
  public var storesTransposed: Bool

  public init(
    prefix: String, hiddenSize: Int, norm: NormDescription, norms: NormPlacement = NormPlacement(), mixers: TokenMixers,
    feedForward: FeedForwardDescription?, isParallel: Bool = false, residualScale: Float = 1, storesTransposed: Bool = false
  ) {
    self.prefix = prefix
    self.hiddenSize = hiddenSize
    self.norm = norm
    self.norms = norms
    self.mixers = mixers
    self.feedForward = feedForward
    self.isParallel = isParallel
    self.residualScale = residualScale
    self.storesTransposed = storesTransposed
  }

  /// A block whose only mixer is attention.
  public init(
    prefix: String, hiddenSize: Int, norm: NormDescription, norms: NormPlacement = NormPlacement(), attention: AttentionDescription,
    feedForward: FeedForwardDescription, isParallel: Bool = false, residualScale: Float = 1, storesTransposed: Bool = false
  ) {
    self.init(
      prefix: prefix, hiddenSize: hiddenSize, norm: norm, norms: norms, mixers: [attention], feedForward: feedForward,
      isParallel: isParallel, residualScale: residualScale, storesTransposed: storesTransposed)
  }

  public init(
    prefix: String, hiddenSize: Int, normEpsilon: Float, attention: AttentionDescription, feedForward: FeedForwardDescription
  ) {
    self.init(
      prefix: prefix, hiddenSize: hiddenSize, norm: NormDescription(epsilon: normEpsilon), mixers: [attention], feedForward: feedForward)
  }

  /// The softmax attention among the mixers; `nil` where there is none.
  public var attention: AttentionDescription? {
    get { mixers.lazy.compactMap { $0 as? AttentionDescription }.first }
    set {
      let place = mixers.firstIndex { $0 is AttentionDescription }
      if let place, let newValue { mixers[place] = newValue }
      if place == nil, let newValue { mixers = TokenMixers(Array(mixers) + [newValue]) }
      if let place, newValue == nil { mixers = TokenMixers(Array(mixers[..<place]) + Array(mixers[(place + 1)...])) }
    }
  }

  public var normEpsilon: Float {
    get { norm.epsilon }
    set { norm.epsilon = newValue }
  }
}

// MARK: - What derives from the description

extension BlockDescription {
  /// The linears by shared input, in the order the block computes them. Derived, so that no pass ever carries a table of model families.
  public var inputGroups: [InputGroup] { program.inputGroups }

  /// Groups whose outputs are added to the residual stream together: attention's and the feed-forward layer's.
  package var subBlocks: [Range<Int>] { program.layers }

  /// The groups from one on that must be computed until the layer around it, or the expert, has made its contribution to the stream.
  package func rest(from group: Int) -> Range<Int> { program.rest(fromStop: program.stops[group]) }

  /// The linears that read the residual stream, by the norm that stands between; `nil` where they read it as it is.
  ///
  /// In a mixture these are the router and the readers of all experts; in a parallel block with one norm, of both layers.
  public var residualReaders: [(norm: String?, group: InputGroup)] { program.residualReaders }

  /// The linears that add to the residual stream.
  public var residualWriters: [LinearName] { program.residualWriters }

  /// Linears that are passed over unless a pattern names them: routers are small, and what they decide is not a matter of degree; and what
  /// mixers say errors grow in.
  public var namedOnly: Set<LinearName> {
    sensitive.union(feedForward?.mixture?.routers ?? [])
  }

  /// Linears of mixers that errors grow in along the sequence.
  package var sensitive: Set<LinearName> { mixers.reduce(into: []) { $0.formUnion($1.namedOnly) } }

  /// Features of the widest matrix that mixers' linears read besides the layer's input.
  package var contextSize: Int { mixers.map(\.contextSize).max() ?? 0 }

  /// Every linear's.
  package var linearShapes: [LinearName: LinearShape] {
    var shapes = mixers.reduce(into: [:]) { $0.merge($1.linearShapes(hiddenSize: hiddenSize)) { first, _ in first } }
    guard let feedForward else { return shapes }
    for (index, network) in feedForward.networks.enumerated() {
      let size = feedForward.size(of: index)
      for name in network.readers {
        shapes[name] = LinearShape(rows: network.isFused ? 2 * size : size, columns: hiddenSize, bias: feedForward.hasBias)
      }
      shapes[network.down] = LinearShape(rows: hiddenSize, columns: size, bias: feedForward.hasBias)
    }
    if let mixture = feedForward.mixture {
      shapes[mixture.router] = LinearShape(rows: mixture.experts, columns: hiddenSize, bias: mixture.hasRouterBias)
      if let gate = mixture.shared?.gate { shapes[gate] = LinearShape(rows: 1, columns: hiddenSize) }
    }
    return shapes
  }

  /// Length of every norm's weight.
  package var normSizes: [(name: String, size: Int)] {
    (norms.names + (feedForward?.mixture?.ownNorms?.names ?? [])).map { ($0, hiddenSize) } + mixers.flatMap(\.norms)
  }

  /// The tensor that holds a norm's weight, by its name inside the block.
  package func weightName(ofNorm name: String) -> String {
    name == feedForward?.mixture?.ownNorms?.beforeRouter ? name : name + ".weight"
  }

  /// Tensors that are neither linears nor norms.
  package var parameters: [MixerParameter] {
    mixers.flatMap(\.parameters) + (feedForward?.mixture?.perExpert ?? []) + (feedForward?.activation.parameters ?? [])
      + (streamScale.map { [MixerParameter($0, shape: [1])] } ?? [])
  }

  /// How a norm of the block computes.
  func norm(named name: String) -> NormDescription {
    var own = norm
    if name == feedForward?.mixture?.ownNorms?.beforeRouter { own.gain = 1 / Float(hiddenSize).squareRoot() }
    if let epsilon = mixers.lazy.compactMap({ $0.epsilon(ofNorm: name) }).first { own.epsilon = epsilon }
    return own
  }
}
