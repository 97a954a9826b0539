public import Tensors

/// What an embedding does besides looking up rows.
public struct EmbeddingDescription: Sendable, Equatable {
  /// What looked-up rows are multiplied by.
  public var scale: Float
  public var positions: ModelDescription.Positions?
  public var tokenTypes: ModelDescription.TokenTypes?

  public init(scale: Float = 1, positions: ModelDescription.Positions? = nil, tokenTypes: ModelDescription.TokenTypes? = nil) {
    self.scale = scale
    self.positions = positions
    self.tokenTypes = tokenTypes
  }
}

/// What turns token ids into hidden states.
public struct Embedding: ModelPart {
  public let prefix: String
  public let tableName: LinearName
  /// A row for every token.
  public var table: Linear
  /// The norm of what was looked up, where there is one.
  public var norms: PartNorms
  /// How it computes.
  public var norm: NormDescription
  public var description: EmbeddingDescription
  /// The table of learned positions.
  public var positions: StoredWeight?
  /// The table of token types.
  public var tokenTypes: StoredWeight?

  public init(
    prefix: String = "", tableName: LinearName, table: Linear, norms: PartNorms = PartNorms(),
    norm: NormDescription = NormDescription(epsilon: 1e-6), description: EmbeddingDescription = EmbeddingDescription(),
    positions: StoredWeight? = nil, tokenTypes: StoredWeight? = nil
  ) {
    self.prefix = prefix
    self.tableName = tableName
    self.table = table
    self.norms = norms
    self.norm = norm
    self.description = description
    self.positions = positions
    self.tokenTypes = tokenTypes
  }

  public var place: PartPlace { .embedding }
  public var name: String { fullName(of: tableName) }

  /// The table.
  public var linears: [LinearName: Linear] {
    get { [tableName: table] }
    set {
      guard let table = newValue[tableName], newValue.count == 1 else { preconditionFailure("\(name) is one table") }
      self.table = table
    }
  }

  public var otherTensors: [(name: String, tensor: Tensor)] {
    [(description.positions?.module, positions), (description.tokenTypes?.module, tokenTypes)].compactMap { module, table in
      guard let module, let table else { return nil }
      return (module + ".weight", table.tensor)
    }
  }
}
