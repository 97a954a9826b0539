import CheckpointIO
import StrictJSON

/// The keys of `config.json` that families after DeepSeek-V3 share: dense layers first, then mixtures whose experts are scored by the sigmoid and
/// chosen with a correction, out of the best groups, beside a shared expert that sees every token.
struct RoutedExperts: Decodable {
  var n_routed_experts, num_experts, num_local_experts, num_experts_per_tok, moe_intermediate_size: Int?
  var n_shared_experts, num_shared_experts, n_group, topk_group, first_k_dense_replace: Int?
  var routed_scaling_factor: Double?
  var norm_topk_prob: Bool?

  /// What a family takes where its configuration is silent.
  struct Defaults {
    var experts: Int
    var perToken: Int
    var size: Int
    var shared = 1
    var denseLayers = 0
    var scale = 1.0
    var normalizes = true
  }

  /// Makes mixtures of all layers but the first ones.
  ///
  /// - Throws: `CheckpointError.unsupportedOption` for numbers that make no mixture.
  func apply(to model: inout ModelDescription, _ defaults: Defaults, correction: String) throws(CheckpointError) {
    let size = moe_intermediate_size ?? defaults.size
    let shared = n_shared_experts ?? num_shared_experts ?? defaults.shared
    var mixture = try MixtureDescription(
      experts: n_routed_experts ?? num_experts ?? num_local_experts ?? defaults.experts,
      expertsPerToken: num_experts_per_tok ?? defaults.perToken, normalizesWeights: norm_topk_prob ?? defaults.normalizes,
      router: "mlp.gate", prefix: "mlp.experts.",
      shared: shared > 0 ? .init(size: shared * size, prefix: "mlp.shared_experts.", gate: nil) : nil
    ).checked()
    mixture.scoring = .sigmoid
    mixture.correction = correction
    mixture.weightScale = Float(routed_scaling_factor ?? defaults.scale)
    try mixture.setGroups(n_group ?? 1, perToken: topk_group ?? 1, scored: 2)
    let dense = first_k_dense_replace ?? defaults.denseLayers
    model.eachBlock { layer, block in
      block.feedForward?.hasBias = false
      guard layer >= dense else { return }
      block.feedForward?.size = size
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      block.feedForward?.mixture = mixture
    }
  }

  /// How many layers are dense is a number, and they come first.
  static func respell(_ json: inout JSON, for description: ModelDescription) {
    json["first_k_dense_replace"] = .integer(description.blocks.prefix { $0.feedForward?.mixture == nil }.count)
  }
}
