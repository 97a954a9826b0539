public import Tensors

/// How the norms of a block, or the one before the head, compute.
public struct NormDescription: Sendable, Equatable {
  public enum Kind: Sendable, Equatable {
    /// x / √(mean(x²) + ε) · w (Zhang and Sennrich 2019, equation 4).
    case rootMeanSquare
    /// (x − mean(x)) / √(var(x) + ε) · w + b (Ba et al. 2016, equation 4).
    case layer
  }

  public var kind: Kind
  public var epsilon: Float
  /// What is added to the weight that the checkpoint stores: 1 for Gemma, whose stored weights lie around zero.
  public var offset: Float
  public var hasBias: Bool
  /// What rows are multiplied by besides the weight (the routers of Gemma 4).
  public var gain: Float = 1

  public init(_ kind: Kind = .rootMeanSquare, epsilon: Float, offset: Float = 0, hasBias: Bool = false) {
    self.kind = kind
    self.epsilon = epsilon
    self.offset = offset
    self.hasBias = hasBias
  }

  /// Every row normalised.
  ///
  /// - Parameters:
  ///   - weight: what the rows are multiplied by, the offset included.
  ///   - bias: what is added then.
  public func apply(_ rows: Matrix, weight: [Float], bias: [Float]? = nil) -> Matrix {
    var result =
      switch kind {
      case .rootMeanSquare: rows.rmsNormalized(weight: weight, epsilon: epsilon)
      case .layer: rows.layerNormalized(weight: weight, epsilon: epsilon)
      }
    if gain != 1 { result = result.scaled(by: gain) }
    if let bias { result.add(row: bias) }
    return result
  }
}

/// Where a block has norms, by their names inside it; `nil` where it has none.
public struct NormPlacement: Sendable, Equatable {
  public var beforeAttention: String?
  /// On what attention adds to the residual stream.
  public var afterAttention: String?
  public var beforeFeedForward: String?
  /// On what the feed-forward layer adds to the residual stream.
  public var afterFeedForward: String?
  /// On the residual stream itself, once attention has been added to it (Vaswani et al. 2017; BERT). What follows reads and adds to what the
  /// norm made.
  public var afterAttentionSum: String?
  /// On the residual stream itself, once the feed-forward layer has been added to it.
  public var afterFeedForwardSum: String?

  public init(
    beforeAttention: String? = "input_layernorm", afterAttention: String? = nil,
    beforeFeedForward: String? = "post_attention_layernorm", afterFeedForward: String? = nil, afterAttentionSum: String? = nil,
    afterFeedForwardSum: String? = nil
  ) {
    self.beforeAttention = beforeAttention
    self.afterAttention = afterAttention
    self.beforeFeedForward = beforeFeedForward
    self.afterFeedForward = afterFeedForward
    self.afterAttentionSum = afterAttentionSum
    self.afterFeedForwardSum = afterFeedForwardSum
  }

  /// Whether norms stand on the residual stream itself, so that what a layer adds is not all it does to it.
  package var areOnSums: Bool { afterAttentionSum != nil || afterFeedForwardSum != nil }

  /// Every norm once.
  package var names: [String] {
    let places = [beforeAttention, afterAttention, afterAttentionSum, beforeFeedForward, afterFeedForward, afterFeedForwardSum]
    return places.compactMap { $0 }.reduce(into: []) { names, name in
      if !names.contains(name) { names.append(name) }
    }
  }
}
