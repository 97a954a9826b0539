public import CheckpointIO

/// A family of models: how its `config.json` reads as a description.
public protocol Architecture: Sendable {
  /// The `model_type` values this family answers to.
  static var modelTypes: [String] { get }
  /// - Throws: `CheckpointError` for keys that are missing, contradictory, or ask for what the forward pass does not compute.
  static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription
  /// `config.json` of a model whose sizes have changed. By default the keys of Llama and its relatives are set where they say otherwise.
  ///
  /// - Throws: `CheckpointError.inexpressible` where what the family can write is another model than the one described.
  static func configuration(of description: ModelDescription, in config: ModelConfig) throws(CheckpointError) -> ModelConfig
}

/// The families that can be opened. A value: extended by `adding`, never by registration.
public struct ArchitectureCatalog: Sendable {
  private var families: [any Architecture.Type]

  public init(_ families: [any Architecture.Type]) { self.families = families }

  /// The families this package ships.
  public static let standard = ArchitectureCatalog([
    Llama.self, Mistral.self, Mixtral.self, Qwen.self, QwenMixture.self, OLMo.self, Gemma.self, Phi3.self, Granite.self, SmolLM3.self,
    StableLM.self, GPT2.self, GPTNeoX.self, OPT.self, Falcon.self, BERT.self,
  ])

  public func adding(_ more: any Architecture.Type...) -> ArchitectureCatalog { ArchitectureCatalog(more + families) }

  public var modelTypes: [String] { families.flatMap { $0.modelTypes }.sorted() }

  /// - Throws: `CheckpointError.unsupportedModel` for a type no family answers to.
  public func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription { try family(of: config).describe(config) }

  /// `config.json` of a model that a run has given other sizes; the same where it has not.
  ///
  /// - Throws: `CheckpointError.inexpressible` for sizes that the family's configuration has no words for.
  public func configuration(of description: ModelDescription, in config: ModelConfig) throws(CheckpointError) -> ModelConfig {
    let family = try family(of: config)
    return try family.describe(config) == description ? config : family.configuration(of: description, in: config)
  }

  private func family(of config: ModelConfig) throws(CheckpointError) -> any Architecture.Type {
    guard let family = families.first(where: { $0.modelTypes.contains(config.modelType) }) else {
      throw .unsupportedModel(type: config.modelType, known: modelTypes)
    }
    return family
  }
}
