public import Tensors

/// A decoder or encoder block.
public struct Block: ModelPart {
  /// Its number in the model, from zero.
  public private(set) var index: Int
  public var description: BlockDescription
  public var linears: [LinearName: Linear]
  public var norms: PartNorms
  /// Tensors that are neither linears nor norms, as they were read, by their names inside the block.
  public var parameters: [String: Tensor]
  /// How the block's keys and values are stored while a runtime generates; `nil` for as they are.
  public var cache: CacheQuantization?
  /// What else becomes of them; runs through a cache obey it, the plain forward pass does not.
  public var cachePolicy: CachePolicy?

  public init(
    index: Int, description: BlockDescription, linears: [LinearName: Linear], norms: PartNorms = PartNorms(),
    parameters: [String: Tensor] = [:], cache: CacheQuantization? = nil, cachePolicy: CachePolicy? = nil
  ) {
    self.index = index
    self.description = description
    self.linears = linears
    self.norms = norms
    self.parameters = parameters
    self.cache = cache
    self.cachePolicy = cachePolicy
  }

  public var place: PartPlace { .decoder(index: index) }
  public var prefix: String { description.prefix }
  public var name: String { prefix.hasSuffix(".") ? String(prefix.dropLast()) : prefix }
  public var inputGroups: [InputGroup] { description.inputGroups }

  public var otherTensors: [(name: String, tensor: Tensor)] {
    parameters.sorted { $0.key < $1.key }.map { (prefix + $0.key, $0.value) }
  }

  public func isNamedOnly(_ linear: LinearName) -> Bool { description.namedOnly.contains(linear) }
  public func fullName(ofNorm norm: String) -> String { prefix + norm }
  public func weightName(ofNorm norm: String) -> String { prefix + description.weightName(ofNorm: norm) }
  public mutating func withBlock(_ change: (inout Block) throws -> Void) rethrows { try change(&self) }

  /// Gives the block another number.
  mutating func move(to index: Int, prefix: String) { (self.index, description.prefix) = (index, prefix) }
}
