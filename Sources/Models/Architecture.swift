public import CheckpointIO

/// A family of models: how its `config.json` reads as a description.
public protocol Architecture: Sendable {
  /// The `model_type` values this family answers to.
  static var modelTypes: [String] { get }
  /// - Throws: `CheckpointError` for keys that are missing, contradictory, or ask for what the forward pass does not compute.
  static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription
}

/// The families that can be opened. A value: extended by `adding`, never by registration.
public struct ArchitectureCatalog: Sendable {
  private var families: [any Architecture.Type]

  public init(_ families: [any Architecture.Type]) { self.families = families }

  /// The families this package ships.
  public static let standard = ArchitectureCatalog([
    Llama.self, Mistral.self, Mixtral.self, Qwen.self, QwenMixture.self, OLMo.self, Gemma.self, Phi3.self, Granite.self, SmolLM3.self,
    StableLM.self, GPT2.self, GPTNeoX.self, OPT.self, Falcon.self,
  ])

  public func adding(_ more: any Architecture.Type...) -> ArchitectureCatalog { ArchitectureCatalog(more + families) }

  public var modelTypes: [String] { families.flatMap { $0.modelTypes }.sorted() }

  /// - Throws: `CheckpointError.unsupportedModel` for a type no family answers to.
  public func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    guard let family = families.first(where: { $0.modelTypes.contains(config.modelType) }) else {
      throw .unsupportedModel(type: config.modelType, known: modelTypes)
    }
    return try family.describe(config)
  }
}
