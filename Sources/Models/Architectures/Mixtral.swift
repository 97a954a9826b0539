public import CheckpointIO

/// Mixtral: Mistral with eight experts, of which two see a token (Jiang et al. 2024).
public enum Mixtral: Architecture {
  public static let modelTypes = ["mixtral"]

  private struct Keys: Decodable {
    var num_local_experts, num_experts_per_tok: Int?
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    let own = try config.decode(Keys.self)
    var model = try keys.description(config, DecoderDefaults(keyValueHeads: 8, epsilon: 1e-5, rotaryBase: 1e6))
    let mixture = try MixtureDescription(
      experts: own.num_local_experts ?? 8, expertsPerToken: own.num_experts_per_tok ?? 2, normalizesWeights: true,
      router: "block_sparse_moe.gate", prefix: "block_sparse_moe.experts."
    ).checked()
    model.eachBlock { _, block in
      block.attention?.window = keys.sliding_window
      block.attention?.hasProjectionBias = false
      block.attention?.hasOutputBias = false
      block.feedForward?.hasBias = false
      block.feedForward?.linears = FeedForwardLinears(.gated(gate: "w1", up: "w3"), down: "w2")
      block.feedForward?.mixture = mixture
    }
    // As llm-compressor saves the experts that it takes apart.
    model.otherSpellings = ["w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"]
    return model
  }
}

extension MixtureDescription {
  /// Lets experts be chosen from the best groups only; one group is none.
  ///
  /// - Throws: for groups that do not divide the experts, or hold too few of them.
  mutating func setGroups(_ count: Int, perToken: Int, scored: Int) throws(CheckpointError) {
    guard count > 0, experts % count == 0, (1...count).contains(perToken), expertsPerToken <= experts / count * perToken else {
      throw .unsupportedOption(
        option: "n_group", value: "\(count)", reason: "\(experts) experts in groups of equal size, of which \(perToken) are looked into")
    }
    groups = count == 1 ? nil : Groups(count: count, perToken: perToken, scored: min(scored, experts / count))
  }

  /// - Throws: for numbers of experts that make no mixture.
  func checked() throws(CheckpointError) -> MixtureDescription {
    guard experts > 0, (1...experts).contains(expertsPerToken) else {
      throw .unsupportedOption(
        option: "num_experts_per_tok", value: "\(expertsPerToken)",
        reason: "of \(experts) experts, at least one and at most all see a token")
    }
    return self
  }
}
