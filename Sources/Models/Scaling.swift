import Tensors

/// A place where a scale per channel may move from what produces an input into the linears that read it: the producer is divided, the
/// consumers' columns are multiplied, and the block computes what it did.
///
/// AWQ and SmoothQuant choose such scales. Between a value projection and the output projection of grouped queries a channel serves every
/// query head of its group, so one element of a scale belongs to several columns.
public struct Scaling: Sendable, Hashable {
  public enum Producer: Sendable, Hashable {
    /// By its name inside the block.
    case norm(String)
    case linear(LinearName)
  }

  public let producer: Producer
  /// The linears that read what is produced, in the order the block computes them.
  public let consumers: [LinearName]
  /// Length of a scale: the producer's outputs.
  public let channels: Int
  /// Columns that follow each other in the consumers as their channels do in the producer, before they are repeated.
  private let run: Int
  /// How often every run comes.
  private let repeats: Int

  init(_ producer: Producer, into consumers: [LinearName], channels: Int, run: Int? = nil, repeats: Int = 1) {
    self.producer = producer
    self.consumers = consumers
    self.channels = channels
    self.run = run ?? channels
    self.repeats = repeats
  }

  /// The consumers' inputs.
  public var columns: Int { channels * repeats }

  /// The channel that a column of the consumers reads.
  public func channel(of column: Int) -> Int { column / (run * repeats) * run + column % run }

  /// A number per channel, for every column.
  public func perColumn(_ values: [Float]) -> [Float] { (0..<columns).map { values[channel(of: $0)] } }

  /// A number per column, averaged over the columns of each channel.
  public func channelMeans(_ values: [Float]) -> [Float] {
    var sums = [Float](repeating: 0, count: channels)
    for column in 0..<columns { sums[channel(of: column)] += values[column] }
    return sums.map { $0 / Float(repeats) }
  }

  /// The largest number among the columns of each channel.
  public func channelMaxima(_ values: [Float]) -> [Float] {
    var maxima = [Float](repeating: -.infinity, count: channels)
    for column in 0..<columns { maxima[channel(of: column)] = max(maxima[channel(of: column)], values[column]) }
    return maxima
  }

  /// Divides the producer by a scale and multiplies the consumers by it; weights that change become dense.
  ///
  /// A norm is rounded to the type it is stored as, and the consumers take what that made of the scale, so that nothing is lost when the
  /// block is written.
  ///
  /// - Parameter scale: positive and finite, one number per channel.
  /// - Returns: what the consumers' columns were multiplied by, which the input is to be divided by.
  @discardableResult
  public func apply(_ scale: [Float], to block: inout Block) -> [Float] {
    precondition(scale.count == channels, "the scale has \(scale.count) elements, the producer \(channels) channels")
    precondition(scale.allSatisfy { $0 > 0 && $0.isFinite }, "a scale is positive and finite")
    var scale = scale
    switch producer {
    case .norm(let name):
      guard var weight = block.norms[name] else { preconditionFailure("the block has no norm \(name)") }
      for channel in weight.indices {
        let divided = block.storageType.rounded(weight[channel] / scale[channel])
        let moved = weight[channel] / divided
        // An element that is zero, or would leave the range of its type, stays as it is.
        guard moved.isFinite, moved > 0 else {
          scale[channel] = 1
          continue
        }
        weight[channel] = divided
        scale[channel] = moved
      }
      block.norms[name] = weight
    case .linear(let name):
      var weight = block[name].weight.dense()
      let inverse = scale.map { 1 / $0 }
      weight.scaleRows(by: inverse)
      block[name].weight = weight
      if let bias = block[name].bias { block[name].bias = zip(bias, inverse).map { $0 * $1 } }
    }
    let factors = perColumn(scale)
    for name in consumers {
      var weight = block[name].weight.dense()
      weight.scaleColumns(by: factors)
      block[name].weight = weight
    }
    return factors
  }
}

extension BlockDescription {
  /// Where scales may move, in the order of the input groups. Every consumer of a producer is named, so that nothing else changes.
  public var scalings: [Scaling] {
    [
      Scaling(
        .norm(Self.attentionNorm), into: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], channels: hiddenSize),
      // Attention mixes tokens and never channels, so a scale of the values comes out of it as it went in.
      Scaling(
        .linear("self_attn.v_proj"), into: ["self_attn.o_proj"], channels: attention.keyValueHeads * attention.headSize,
        run: attention.headSize, repeats: attention.heads / attention.keyValueHeads),
      Scaling(.norm(Self.feedForwardNorm), into: ["mlp.gate_proj", "mlp.up_proj"], channels: hiddenSize),
      // act(g) ⊙ (u / s) · s: the gate's own outputs go through the activation and cannot be scaled.
      Scaling(.linear("mlp.up_proj"), into: ["mlp.down_proj"], channels: feedForward.size),
    ]
  }

  /// Groups whose outputs are added to the residual stream together: attention's and the feed-forward layer's.
  package var subBlocks: [Range<Int>] { [0..<2, 2..<4] }
}
