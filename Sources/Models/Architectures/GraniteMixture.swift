public import CheckpointIO

/// Granite 3 with mixtures of experts, with a shared one or without (Granite Team 2024).
public enum GraniteMixture: Architecture {
  public static let modelTypes = ["granitemoe", "granitemoeshared"]

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var model = try Granite.describe(config)
    let experts = try config.decode(GraniteExperts.self)
    let layer = try experts.layer(of: model, hasShared: config.modelType == "granitemoeshared")
    model.eachBlock { _, block in block.feedForward = layer }
    return model
  }
}

/// The keys of `config.json` that say what experts a Granite model has.
struct GraniteExperts: Decodable {
  var num_local_experts, num_experts_per_tok, shared_intermediate_size: Int?

  /// A layer with experts, all stored in two tensors. One by one they are called what vLLM's loader calls them.
  func layer(of model: ModelDescription, hasShared: Bool) throws(CheckpointError) -> FeedForwardDescription? {
    guard var layer = model.blocks.lazy.compactMap(\.feedForward).first else { return nil }
    let shared = shared_intermediate_size ?? (hasShared ? 1024 : 0)
    var mixture = try MixtureDescription(
      experts: num_local_experts ?? 8, expertsPerToken: num_experts_per_tok ?? 2, normalizesWeights: true,
      router: "block_sparse_moe.router.layer", prefix: "block_sparse_moe.experts.",
      shared: hasShared && shared > 0 ? .init(size: shared, prefix: "shared_mlp.", gate: nil, linears: Self.shared) : nil
    ).checked()
    mixture.stacked = StackedExperts(readers: "block_sparse_moe.input_linear.weight", down: "block_sparse_moe.output_linear.weight")
    layer.hasBias = false
    layer.linears = FeedForwardLinears(.gated(gate: "w1", up: "w3"), down: "w2")
    layer.mixture = mixture
    return layer
  }

  /// A network's linears, where it is no expert or the shared one.
  static let shared = FeedForwardLinears(.fused("input_linear"), down: "output_linear")
}
