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
  /// The group whose input is what is produced, whole: a router's for the readers of its experts, each of which sees some tokens only.
  public let input: InputGroup
  /// Length of a scale: the producer's outputs.
  public let channels: Int
  /// Columns that follow each other in the consumers as their channels do in the producer, before they are repeated.
  private let run: Int
  /// How often every run comes.
  private let repeats: Int
  /// The row of a linear producer that makes each channel; `nil` for all rows in order.
  private let rows: [Int]?

  init(
    _ producer: Producer, into consumers: [LinearName], input: InputGroup? = nil, channels: Int, run: Int? = nil, repeats: Int = 1,
    rows: [Int]? = nil
  ) {
    self.producer = producer
    self.consumers = consumers
    self.input = input ?? InputGroup(consumers)
    self.rows = rows
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
  /// block is written; of a bias, no more than one rounding.
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
        let divided = block.norms.rounded(weight[channel] / scale[channel])
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
      if let bias = block.norms.biases[name] { block.norms.biases[name] = zip(bias, scale).map { $0 / $1 } }
    case .linear(let name):
      var weight = block[name].weight.dense()
      var inverse = scale.map { 1 / $0 }
      if let rows {
        var all = [Float](repeating: 1, count: weight.rows)
        for (row, factor) in zip(rows, inverse) { all[row] = factor }
        inverse = all
      }
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
  ///
  /// There is none where something stands between that is not linear in each channel: an activation other than ReLU before the output of an
  /// ungated layer, or the residual stream itself before linears without a norm.
  public var scalings: [Scaling] {
    var scalings: [Scaling] = []
    let apart = feedForward?.mixture?.ownNorms
    for (norm, readers) in residualReaders {
      // A router alone is not rounded, and no group's input is what experts alone read, whole.
      guard let norm, norm != apart?.beforeRouter, norm != apart?.beforeExperts else { continue }
      // The first group that reads what the norm makes; of a mixture it is the router's.
      guard let group = inputGroups.first(where: { readers.linears.contains($0.linears[0]) }) else { continue }
      scalings.append(Scaling(.norm(norm), into: readers.linears, input: group, channels: hiddenSize))
    }
    // Attention mixes tokens and never channels, so a scale of the values comes out of it as it went in.
    if let heads, let path = valuePath {
      let values = path.rows.flatMap { Array($0) }
      let isWhole = values == Array(values.indices) && !scoreMakers.contains(path.maker)
      let valueScaling = Scaling(
        .linear(path.maker), into: [path.reader], channels: values.count, run: heads.size, repeats: heads.group,
        rows: isWhole ? nil : values)
      scalings.insert(valueScaling, at: min(scalings.count, norms.beforeAttention == nil ? 0 : 1))
    }
    guard let feedForward else { return scalings }
    for (index, network) in feedForward.networks.enumerated() {
      let size = feedForward.size(of: index)
      switch network.input {
      // act(g) ⊙ (u / s) · s: the gate's own outputs go through the activation and cannot be scaled.
      case _ where !feedForward.activation.isLinearInGated: break
      case .gated(_, let up): scalings.append(Scaling(.linear(up), into: [network.down], channels: size))
      case .fused(let name):
        scalings.append(Scaling(.linear(name), into: [network.down], channels: size, rows: Array(size..<2 * size)))
      // relu(u / s) · s = relu(u) for positive s.
      case .plain(let up) where feedForward.activation == .relu: scalings.append(Scaling(.linear(up), into: [network.down], channels: size))
      case .plain: break
      }
    }
    return scalings
  }
}
