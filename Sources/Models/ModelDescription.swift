/// Everything about a decoder-only transformer that is data rather than weights.
public struct ModelDescription: Sendable, Equatable {
  public var vocabularySize: Int
  public var hiddenSize: Int
  /// Module of the token embedding, such as `model.embed_tokens`.
  public var embedding: String
  /// Module of the norm before the head.
  public var finalNorm: String
  /// Module of the head; `nil` when the head is the embedding.
  public var head: String?
  public var normEpsilon: Float
  /// Positions the model was made for, where its configuration says.
  public var maximumPositions: Int?
  public var blocks: [BlockDescription]

  public init(
    vocabularySize: Int, hiddenSize: Int, embedding: String = "model.embed_tokens", finalNorm: String = "model.norm",
    head: String? = "lm_head", normEpsilon: Float, maximumPositions: Int? = nil, blocks: [BlockDescription]
  ) {
    self.vocabularySize = vocabularySize
    self.hiddenSize = hiddenSize
    self.embedding = embedding
    self.finalNorm = finalNorm
    self.head = head
    self.normEpsilon = normEpsilon
    self.maximumPositions = maximumPositions
    self.blocks = blocks
  }
}

/// One decoder block: attention and feed-forward, each behind a root mean square norm and added to the residual stream.
public struct BlockDescription: Sendable, Equatable {
  /// What precedes the names of the block's tensors, such as `model.layers.0.`.
  public var prefix: String
  public var hiddenSize: Int
  public var normEpsilon: Float
  public var attention: AttentionDescription
  public var feedForward: FeedForwardDescription

  public init(
    prefix: String, hiddenSize: Int, normEpsilon: Float, attention: AttentionDescription, feedForward: FeedForwardDescription
  ) {
    self.prefix = prefix
    self.hiddenSize = hiddenSize
    self.normEpsilon = normEpsilon
    self.attention = attention
    self.feedForward = feedForward
  }
}

public struct AttentionDescription: Sendable, Equatable {
  public var heads: Int
  public var keyValueHeads: Int
  public var headSize: Int
  public var rotary: RotaryDescription
  /// Keys a query sees, itself included; `nil` for all before it.
  public var window: Int?
  /// Whether queries and keys are normalised per head before the rotation (Qwen3).
  public var normalizesQueriesAndKeys: Bool
  public var hasProjectionBias: Bool
  public var hasOutputBias: Bool

  public init(
    heads: Int, keyValueHeads: Int, headSize: Int, rotary: RotaryDescription, window: Int? = nil,
    normalizesQueriesAndKeys: Bool = false, hasProjectionBias: Bool = false, hasOutputBias: Bool = false
  ) {
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.headSize = headSize
    self.rotary = rotary
    self.window = window
    self.normalizesQueriesAndKeys = normalizesQueriesAndKeys
    self.hasProjectionBias = hasProjectionBias
    self.hasOutputBias = hasOutputBias
  }
}

/// down(act(gate(x)) ⊙ up(x)).
public struct FeedForwardDescription: Sendable, Equatable {
  public var size: Int
  public var activation: Activation
  public var hasBias: Bool

  public init(size: Int, activation: Activation, hasBias: Bool = false) {
    self.size = size
    self.activation = activation
    self.hasBias = hasBias
  }
}

public enum Activation: Sendable, Equatable {
  case silu
  /// The tanh form of GELU.
  case geluTanh
}

// MARK: - What derives from the description

extension BlockDescription {
  /// The norm before attention and the one before the feed-forward layer.
  package static let attentionNorm = "input_layernorm"
  package static let feedForwardNorm = "post_attention_layernorm"

  /// Derived, so that no pass ever carries a table of model families.
  public var inputGroups: [InputGroup] {
    [
      InputGroup(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]), InputGroup(["self_attn.o_proj"]),
      InputGroup(["mlp.gate_proj", "mlp.up_proj"]), InputGroup(["mlp.down_proj"]),
    ]
  }

  /// The linears that read the residual stream, by the norm that stands between.
  public var residualReaders: [(norm: String, group: InputGroup)] {
    [(Self.attentionNorm, inputGroups[0]), (Self.feedForwardNorm, inputGroups[2])]
  }

  /// The linears that add to the residual stream.
  public var residualWriters: [LinearName] { ["self_attn.o_proj", "mlp.down_proj"] }

  /// The linear that makes the values, head after head, and the one that reads what attention makes of them: its inputs are one stretch per
  /// query head, in the coordinates of the key-value head that serves it.
  public var valuePath: (maker: LinearName, reader: LinearName) { ("self_attn.v_proj", "self_attn.o_proj") }

  /// [outputs, inputs] of every linear, and whether it has a bias.
  package var linearShapes: [LinearName: (rows: Int, columns: Int, bias: Bool)] {
    let queries = attention.heads * attention.headSize
    let keys = attention.keyValueHeads * attention.headSize
    return [
      "self_attn.q_proj": (queries, hiddenSize, attention.hasProjectionBias),
      "self_attn.k_proj": (keys, hiddenSize, attention.hasProjectionBias),
      "self_attn.v_proj": (keys, hiddenSize, attention.hasProjectionBias),
      "self_attn.o_proj": (hiddenSize, queries, attention.hasOutputBias),
      "mlp.gate_proj": (feedForward.size, hiddenSize, feedForward.hasBias),
      "mlp.up_proj": (feedForward.size, hiddenSize, feedForward.hasBias),
      "mlp.down_proj": (hiddenSize, feedForward.size, feedForward.hasBias),
    ]
  }

  /// Length of every norm's weight.
  package var normSizes: [(name: String, size: Int)] {
    var sizes = [(Self.attentionNorm, hiddenSize), (Self.feedForwardNorm, hiddenSize)]
    if attention.normalizesQueriesAndKeys {
      sizes += [("self_attn.q_norm", attention.headSize), ("self_attn.k_norm", attention.headSize)]
    }
    return sizes
  }
}
