/// A feed-forward layer: one network for all tokens, or a mixture of experts.
public struct FeedForwardDescription: Sendable, Equatable {
  /// Features between input and output; of each expert in a mixture.
  public var size: Int
  public var activation: Activation
  public var hasBias: Bool
  /// Inside the block; in a mixture, inside each expert.
  public var linears: FeedForwardLinears
  /// `nil` for one network that sees every token.
  public var mixture: MixtureDescription?
  /// What the layer's output is multiplied by before it is added (Falcon-H1).
  public var outputScale: Float = 1

  public init(
    size: Int, activation: Activation, hasBias: Bool = false, linears: FeedForwardLinears = FeedForwardLinears(),
    mixture: MixtureDescription? = nil
  ) {
    self.size = size
    self.activation = activation
    self.hasBias = hasBias
    self.linears = linears
    self.mixture = mixture
  }
}

public enum Activation: Sendable, Equatable {
  case silu
  /// The tanh form of GELU.
  case geluTanh
  /// GELU with the error function.
  case gelu
  case relu
  /// SiLU of the input times a number (Falcon-H1).
  case scaledSilu(Float)
  /// With g = min(gate, limit) and u the gated clamped to ± limit: g · σ(gain · g) · (u + 1) (gpt-oss).
  case clampedSwiglu(gain: Float, limit: Float)
  /// max(x, 0)² (So et al. 2021; Nemotron).
  case reluSquared
  /// xIELU, whose numbers each layer stores under the name of a module inside the block (Apertus).
  case xielu(String)
}

extension Activation {
  /// Tensors of the block that it computes with.
  var parameters: [MixerParameter] {
    guard case .xielu(let module) = self else { return [] }
    return XIELU.names.map { MixerParameter("\(module).\($0)", shape: $0.hasPrefix("alpha") ? [1] : []) }
  }

  /// Whether twice of what is gated comes out as twice as much.
  var isLinearInGated: Bool { if case .clampedSwiglu = self { false } else { true } }
}

/// The linears of one feed-forward network.
public struct FeedForwardLinears: Sendable, Equatable {
  public enum Input: Sendable, Equatable {
    /// down(act(gate(x)) ⊙ up(x)).
    case gated(gate: LinearName, up: LinearName)
    /// The same, the rows of gate before those of up in one matrix.
    case fused(LinearName)
    /// down(act(up(x))).
    case plain(LinearName)
  }

  public var input: Input
  public var down: LinearName

  public init(_ input: Input = .gated(gate: "mlp.gate_proj", up: "mlp.up_proj"), down: LinearName = "mlp.down_proj") {
    self.input = input
    self.down = down
  }

  /// The linears that read the layer's input, in the order they are computed.
  public var readers: [LinearName] {
    switch input {
    case .gated(let gate, let up): [gate, up]
    case .fused(let name), .plain(let name): [name]
    }
  }

  /// Whether one matrix holds gate and up.
  public var isFused: Bool { if case .fused = input { true } else { false } }

  /// The same linears under longer names.
  func prefixed(_ prefix: String) -> FeedForwardLinears {
    func longer(_ name: LinearName) -> LinearName { LinearName(rawValue: prefix + name.rawValue) }
    let input: Input =
      switch input {
      case .gated(let gate, let up): .gated(gate: longer(gate), up: longer(up))
      case .fused(let name): .fused(longer(name))
      case .plain(let name): .plain(longer(name))
      }
    return FeedForwardLinears(input, down: longer(down))
  }
}

/// A mixture of experts: a router scores them, the best see the token, and their outputs are added, weighted by the softmax over all scores
/// (Shazeer et al. 2017; Fedus et al. 2021).
public struct MixtureDescription: Sendable, Equatable {
  /// An expert that sees every token.
  public struct Shared: Sendable, Equatable {
    public var size: Int
    public var prefix: String
    /// A linear of one output whose sigmoid weighs the expert; `nil` for weight 1.
    public var gate: LinearName?
    /// Its linears, by the names behind the prefix; `nil` where they are called what those of the other experts are.
    public var linears: FeedForwardLinears?

    public init(size: Int, prefix: String, gate: LinearName?, linears: FeedForwardLinears? = nil) {
      self.size = size
      self.prefix = prefix
      self.gate = gate
      self.linears = linears
    }
  }

  public var experts: Int
  public var expertsPerToken: Int
  /// The norms of a mixture that stands beside its shared expert instead of around it: router, experts and the shared one read the residual
  /// stream through norms of their own, and what the experts and the shared one make is normalised before it is added (Gemma 4).
  public struct OwnNorms: Sendable, Equatable {
    /// The weight of this one is stored under its name alone, and what it makes is divided by √hiddenSize.
    public var beforeRouter: String
    public var beforeExperts: String
    public var afterExperts: String
    public var afterShared: String

    public init(beforeRouter: String, beforeExperts: String, afterExperts: String, afterShared: String) {
      self.beforeRouter = beforeRouter
      self.beforeExperts = beforeExperts
      self.afterExperts = afterExperts
      self.afterShared = afterShared
    }

    package var names: [String] { [beforeRouter, beforeExperts, afterExperts, afterShared] }
  }

  /// How a router's outputs become the weights of experts.
  public enum Scoring: Sendable, Equatable {
    /// Softmax over all experts.
    case softmax
    /// Each on its own by the sigmoid (DeepSeek-V3).
    case sigmoid
    /// Expert after expert by the softmax over those that score nearly as well as the best one left: those whose distance to it is at most twice
    /// the tolerance, as a share of the larger of both (Liu et al. 2024, "GRIN"; Phi-3.5-MoE).
    case sparseMixer(tolerance: Float)
  }

  /// Experts in groups, of which the best are looked into (DeepSeek-AI 2024, "DeepSeek-V3", section 2.1.2).
  public struct Groups: Sendable, Equatable {
    public var count: Int
    /// Groups whose experts may be chosen.
    public var perToken: Int
    /// How many of a group's best scores are added to say how good it is.
    public var scored: Int

    public init(count: Int, perToken: Int, scored: Int) {
      self.count = count
      self.perToken = perToken
      self.scored = scored
    }
  }

  /// Whether the weights of the chosen experts are divided by their sum.
  public var normalizesWeights: Bool
  public var scoring = Scoring.softmax
  /// Whether an expert's input is multiplied by what the expert counts for the token, instead of its output (Llama 4).
  public var weighsInput = false
  /// A vector that is added to the scores for the choice alone, by its name inside the block; `nil` where there is none.
  public var correction: String?
  /// Whether that vector is stored as a matrix of one row.
  public var correctionIsRow = false
  public var groups: Groups?
  /// A vector that the chosen experts' weights are multiplied by, each by its own number, by its name inside the block; `nil` for nothing.
  public var expertScale: String?
  /// `nil` where all experts read what the router reads.
  public var ownNorms: OwnNorms?
  /// What the weights of the chosen experts are multiplied by.
  public var weightScale: Float = 1
  /// The linear of one output per expert.
  public var router: LinearName
  public var hasRouterBias = false
  /// What precedes an expert's number, such as `mlp.experts.`.
  public var prefix: String
  /// How the family's checkpoints store all experts together; `nil` where each has matrices of its own.
  public var stacked: StackedExperts?
  public var shared: Shared?

  public init(
    experts: Int, expertsPerToken: Int, normalizesWeights: Bool, router: LinearName, prefix: String, shared: Shared? = nil
  ) {
    self.experts = experts
    self.expertsPerToken = expertsPerToken
    self.normalizesWeights = normalizesWeights
    self.router = router
    self.prefix = prefix
    self.shared = shared
  }

  /// Tensors of the block that have a number for every expert, and how they are stored.
  package var perExpert: [MixerParameter] {
    (correction.map { [MixerParameter($0, shape: correctionIsRow ? [1, experts] : [experts])] } ?? [])
      + (expertScale.map { [MixerParameter($0, shape: [experts])] } ?? [])
  }

  /// The linears that decide who sees a token and how much it counts.
  public var routers: [LinearName] { [router] + (shared?.gate.map { [$0] } ?? []) }
}

extension FeedForwardDescription {
  /// The networks of the layer: the one, or all experts, the shared one last.
  public var networks: [FeedForwardLinears] {
    guard let mixture else { return [linears] }
    return (0..<mixture.experts + (mixture.shared == nil ? 0 : 1)).map { expert($0) }
  }

  /// - Parameter index: of an expert; their number for the shared one.
  /// - Precondition: the layer is a mixture.
  public func expert(_ index: Int) -> FeedForwardLinears {
    guard let mixture else { preconditionFailure("the layer has no experts") }
    if index == mixture.experts, let shared = mixture.shared { return (shared.linears ?? linears).prefixed(shared.prefix) }
    return linears.prefixed("\(mixture.prefix)\(index).")
  }

  /// Features of the wide input that calibration may keep; an expert's is not kept.
  package var keptSize: Int {
    guard let mixture else { return size }
    return mixture.ownNorms == nil ? 0 : mixture.shared?.size ?? 0
  }

  /// Features inside a network.
  public func size(of network: Int) -> Int {
    if let mixture, network == mixture.experts, let shared = mixture.shared { return shared.size }
    return size
  }
}
