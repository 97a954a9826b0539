public import CheckpointIO
public import StrictJSON

/// Nemotron-H and Nemotron 3: every block is one thing, Mamba-2, attention without positions, a network with squared ReLU, or a mixture of such
/// (NVIDIA 2025).
public enum NemotronH: Architecture {
  public static let modelTypes = ["nemotron_h"]

  private struct Keys: Decodable {
    var mamba_num_heads, mamba_head_dim, n_groups, ssm_state_size, conv_kernel: Int?
    var use_conv_bias, use_bias: Bool?
    var time_step_min: Double?
    var layer_norm_epsilon: Float?
    var mlp_hidden_act, hybrid_override_pattern: String?
    var n_routed_experts, n_shared_experts, num_experts_per_tok, moe_intermediate_size, moe_shared_expert_intermediate_size: Int?
    var moe_latent_size, n_group, topk_group: Int?
    var norm_topk_prob: Bool?
    var routed_scaling_factor: Double?
  }

  /// What a block is, in any of the spellings in use.
  private enum Kind: String {
    case recurrent = "linear_attention"
    case attention = "full_attention"
    case network = "mlp"
    case mixture = "moe"

    init?(_ name: String) {
      switch name {
      case "M", "mamba", "linear_attention": self = .recurrent
      case "*", "attention", "full_attention": self = .attention
      case "-", "mlp": self = .network
      case "E", "moe": self = .mixture
      default: return nil
      }
    }
  }

  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["hybrid_override_pattern"] = nil
    json["layers_block_type"] = .array(
      description.blocks.map { block in
        let kind: Kind =
          block.mixers.isEmpty ? block.feedForward?.mixture == nil ? .network : .mixture : block.attention == nil ? .recurrent : .attention
        return .string(kind.rawValue)
      })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var config = config
    let own = try config.decode(Keys.self)
    try config.checkMixerActivation("mamba_hidden_act")
    let kinds = try kinds(own, config)
    config.json["num_hidden_layers"] = .integer(kinds.count)
    config.json["hidden_act"] = .string(own.mlp_hidden_act ?? "relu2")
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(headSize: 128, keyValueHeads: 8, epsilon: own.layer_norm_epsilon ?? 1e-5))
    model.embedding = "backbone.embeddings"
    model.finalNorm = "backbone.norm_f"
    let mamba = Mamba2(
      module: "mixer", heads: own.mamba_num_heads ?? 128, headSize: own.mamba_head_dim ?? 64, groups: own.n_groups ?? 8,
      stateSize: own.ssm_state_size ?? 128, taps: own.conv_kernel ?? 4, epsilon: model.normEpsilon,
      hasConvolutionBias: own.use_conv_bias ?? true, hasInputBias: own.use_bias ?? false, hasOutputBias: own.use_bias ?? false,
      steps: Float(own.time_step_min ?? 0.001) ... .infinity)
    let network = FeedForwardLinears(.plain("mixer.up_proj"), down: "mixer.down_proj")
    let mixture = kinds.contains(.mixture) ? try mixture(own) : nil
    model.eachBlock { layer, block in
      block.prefix = "backbone.layers.\(layer)."
      block.norms = NormPlacement(beforeAttention: "norm", beforeFeedForward: "norm")
      block.attention?.rotary = nil
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
      block.attention?.projections = .separate(query: "mixer.q_proj", key: "mixer.k_proj", value: "mixer.v_proj")
      block.attention?.output = "mixer.o_proj"
      switch kinds[layer] {
      case .recurrent: (block.mixers, block.feedForward) = ([mamba], nil)
      case .attention: block.feedForward = nil
      case .network:
        block.mixers = []
        block.feedForward?.linears = network
      case .mixture:
        block.mixers = []
        block.feedForward?.size = own.moe_intermediate_size ?? 7688
        block.feedForward?.linears = FeedForwardLinears(.plain("up_proj"), down: "down_proj")
        block.feedForward?.mixture = mixture
      }
    }
    return model
  }

  private static func kinds(_ own: Keys, _ config: ModelConfig) throws(CheckpointError) -> [Kind] {
    let list = (config.json["layers_block_type"] ?? config.json["layer_types"])?.elements?.compactMap(\.string)
    let names = list ?? own.hybrid_override_pattern.map { $0.map(String.init) } ?? []
    guard !names.isEmpty else {
      throw .malformedConfiguration(path: config.path, reason: "\"layers_block_type\" or \"hybrid_override_pattern\" is needed")
    }
    var kinds: [Kind] = []
    for name in names {
      guard let kind = Kind(name) else {
        throw .unsupportedOption(option: "layers_block_type", value: name, reason: "mamba, attention, mlp and moe are known")
      }
      kinds.append(kind)
    }
    return kinds
  }

  private static func mixture(_ own: Keys) throws(CheckpointError) -> MixtureDescription {
    guard own.moe_latent_size == nil else {
      throw .unsupportedOption(
        option: "moe_latent_size", value: "\(own.moe_latent_size ?? 0)", reason: "experts that read latents are not computed here")
    }
    let experts = own.n_routed_experts ?? 8
    var mixture = try MixtureDescription(
      experts: experts, expertsPerToken: own.num_experts_per_tok ?? 2, normalizesWeights: own.norm_topk_prob ?? true,
      router: "mixer.gate", prefix: "mixer.experts.",
      shared: own.n_shared_experts == 0
        ? nil : .init(size: own.moe_shared_expert_intermediate_size ?? 7688, prefix: "mixer.shared_experts.", gate: nil)
    ).checked()
    mixture.scoring = .sigmoid
    mixture.correction = "mixer.gate.e_score_correction_bias"
    mixture.weightScale = Float(own.routed_scaling_factor ?? 1)
    try mixture.setGroups(own.n_group ?? 1, perToken: own.topk_group ?? 1, scored: 2)
    return mixture
  }
}
