/// One block of a decoder or encoder: attention and a feed-forward layer, both added to the residual stream, with norms before or behind
/// them, or on the sums.
public struct BlockDescription: Sendable, Equatable {
  /// What precedes the names of the block's tensors, such as `model.layers.0.`.
  public var prefix: String
  public var hiddenSize: Int
  /// How all norms of the block compute.
  public var norm: NormDescription
  public var norms: NormPlacement
  public var attention: AttentionDescription
  public var feedForward: FeedForwardDescription
  /// Whether both layers read the block's input, instead of the second reading what the first left.
  public var isParallel: Bool
  /// What the layers' outputs are multiplied by before they are added (Granite).
  public var residualScale: Float
  /// Whether the checkpoint stores the blocks' linears as [inputs × outputs] (GPT-2).
  public var storesTransposed: Bool

  public init(
    prefix: String, hiddenSize: Int, norm: NormDescription, norms: NormPlacement = NormPlacement(), attention: AttentionDescription,
    feedForward: FeedForwardDescription, isParallel: Bool = false, residualScale: Float = 1, storesTransposed: Bool = false
  ) {
    self.prefix = prefix
    self.hiddenSize = hiddenSize
    self.norm = norm
    self.norms = norms
    self.attention = attention
    self.feedForward = feedForward
    self.isParallel = isParallel
    self.residualScale = residualScale
    self.storesTransposed = storesTransposed
  }

  public init(
    prefix: String, hiddenSize: Int, normEpsilon: Float, attention: AttentionDescription, feedForward: FeedForwardDescription
  ) {
    self.init(
      prefix: prefix, hiddenSize: hiddenSize, norm: NormDescription(epsilon: normEpsilon), attention: attention, feedForward: feedForward)
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

  /// The linear that makes the values, and the one that reads what attention makes of them: its inputs are one stretch per query head, in
  /// the coordinates of the key-value head that serves it. `AttentionDescription.valueRows` says which rows of the maker belong to a head.
  public var valuePath: (maker: LinearName, reader: LinearName) { (attention.valueRows(0).linear, attention.output) }

  /// Linears that are passed over unless a pattern names them: routers are small, and what they decide is not a matter of degree.
  public var namedOnly: Set<LinearName> { Set(feedForward.mixture?.routers ?? []) }

  /// [outputs, inputs] of every linear, and whether it has a bias.
  package var linearShapes: [LinearName: (rows: Int, columns: Int, bias: Bool)] {
    var shapes: [LinearName: (rows: Int, columns: Int, bias: Bool)] = [:]
    for (name, rows) in zip(attention.projections.linears, attention.projectionSizes) {
      shapes[name] = (rows, hiddenSize, attention.hasProjectionBias)
    }
    shapes[attention.output] = (hiddenSize, attention.heads * attention.headSize, attention.hasOutputBias)
    for (index, network) in feedForward.networks.enumerated() {
      let size = feedForward.size(of: index)
      for name in network.readers {
        var rows = size
        if case .fused = network.input { rows *= 2 }
        shapes[name] = (rows, hiddenSize, feedForward.hasBias)
      }
      shapes[network.down] = (hiddenSize, size, feedForward.hasBias)
    }
    if let mixture = feedForward.mixture {
      shapes[mixture.router] = (mixture.experts, hiddenSize, false)
      if let gate = mixture.shared?.gate { shapes[gate] = (1, hiddenSize, false) }
    }
    return shapes
  }

  /// Length of every norm's weight.
  package var normSizes: [(name: String, size: Int)] {
    var sizes = norms.names.map { (name: $0, size: hiddenSize) }
    switch attention.queryKeyNorm {
    case nil: break
    case .head: sizes += [(attention.queryNorm, attention.headSize), (attention.keyNorm, attention.headSize)]
    case .whole:
      sizes += [
        (attention.queryNorm, attention.heads * attention.headSize), (attention.keyNorm, attention.keyValueHeads * attention.headSize),
      ]
    }
    return sizes
  }
}
