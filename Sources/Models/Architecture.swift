public import CheckpointIO
public import StrictJSON

/// A family of models: how its `config.json` reads as a description.
public protocol Architecture: Sendable {
  /// The `model_type` values this family answers to.
  static var modelTypes: [String] { get }
  /// - Throws: `CheckpointError` for keys that are missing, contradictory, or ask for what the forward pass does not compute.
  static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription
  /// Sets what the family alone says of its layers, one by one, where these are fewer than they were; by default nothing.
  static func respell(_ json: inout JSON, for description: ModelDescription)
  /// `config.json` of a model whose sizes have changed. By default the keys of Llama and its relatives are set where they say otherwise.
  ///
  /// - Parameter kept: which of the layers are left, by the numbers they had.
  /// - Throws: `CheckpointError.inexpressible` where what the family can write is another model than the one described.
  static func configuration(
    of description: ModelDescription, keeping kept: [Int], in config: ModelConfig
  ) throws(CheckpointError) -> ModelConfig
}

extension Architecture {
  public static func respell(_ json: inout JSON, for description: ModelDescription) {}
}

/// The families that can be opened. A value: extended by `adding`, never by registration.
public struct ArchitectureCatalog: Sendable {
  private var families: [any Architecture.Type]

  public init(_ families: [any Architecture.Type]) { self.families = families }

  /// The families this package ships.
  public static let standard = ArchitectureCatalog([
    Llama.self, Llama4.self, Mistral.self, Mistral4.self, Mixtral.self, Qwen.self, QwenMixture.self, OLMo.self, Arcee.self, Apertus.self,
    Gemma.self, Gemma4.self, Phi3.self,
    PhiMoE.self, Granite.self,
    GraniteMixture.self,
    SmolLM3.self, GptOss.self, DeepSeek.self, GLM.self, GLMFlash.self, Dots.self, EXAONE.self, MiniMax.self, Ernie.self, Cohere.self,
    Nemotron.self,
    Starcoder2.self, SeedOSS.self, Hunyuan.self,
    LFM2.self, QwenHybrid.self, GraniteHybrid.self, FalconH1.self, NemotronH.self, StableLM.self,
    GPT2.self, GPTNeoX.self,
    OPT.self, Falcon.self, BLOOM.self, MPT.self, BERT.self,
  ])

  public func adding(_ more: any Architecture.Type...) -> ArchitectureCatalog { ArchitectureCatalog(more + families) }

  public var modelTypes: [String] { families.flatMap { $0.modelTypes }.sorted() }

  /// - Throws: `CheckpointError.unsupportedModel` for a type no family answers to, and what the family refuses.
  public func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let description = try family(of: config).describe(config)
    for block in description.blocks {
      if let reason = block.absurdity { throw .malformedConfiguration(path: config.path, reason: reason) }
    }
    return description
  }

  /// `config.json` of a model that a run has given other sizes; the same where it has not.
  ///
  /// - Parameter kept: which of the layers are left, by the numbers they had; by default the first ones.
  /// - Throws: `CheckpointError.inexpressible` for sizes that the family's configuration has no words for.
  public func configuration(
    of description: ModelDescription, keeping kept: [Int]? = nil, in config: ModelConfig
  ) throws(CheckpointError) -> ModelConfig {
    let family = try family(of: config)
    let original = try family.describe(config)
    // A configuration does not say how a file spells names.
    let described = description.spelled(like: original)
    return try original == described
      ? config : family.configuration(of: described, keeping: kept ?? Array(description.blocks.indices), in: config)
  }

  private func family(of config: ModelConfig) throws(CheckpointError) -> any Architecture.Type {
    guard let family = families.first(where: { $0.modelTypes.contains(config.modelType) }) else {
      throw .unsupportedModel(type: config.modelType, known: modelTypes)
    }
    return family
  }
}

extension BlockDescription {
  /// Why no model can have such a block; `nil` where one can.
  fileprivate var absurdity: String? {
    if let reason = mixers.lazy.compactMap(\.absurdity).first { return reason }
    guard norm.epsilon >= 0, norm.epsilon.isFinite else { return "norms with an epsilon of \(norm.epsilon) are not possible" }
    guard let feedForward else { return nil }
    guard feedForward.networks.indices.allSatisfy({ feedForward.size(of: $0) > 0 }) else {
      return "a feed-forward layer without features is not possible"
    }
    return nil
  }
}
