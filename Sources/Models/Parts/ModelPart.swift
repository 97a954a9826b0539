public import Tensors

/// Where a part of a model stands.
public enum PartPlace: Sendable, Hashable {
  case embedding
  case decoder(index: Int)
  case head
}

/// One part of a model, and one step of the sweep over it: an `Embedding`, a decoder `Block`, or a `Head`.
public protocol ModelPart: Sendable {
  var place: PartPlace { get }
  /// Its name in the whole model, such as `model.layers.0`.
  var name: String { get }
  /// What precedes a linear's name to give its module's full name.
  var prefix: String { get }
  var linears: [LinearName: Linear] { get set }
  var norms: PartNorms { get set }
  /// Tensors that are neither linears nor norms, by their names in the whole model; they are written as they are.
  var otherTensors: [(name: String, tensor: Tensor)] { get }
  /// The linears by shared input, in the order the part computes them. At the ends of a model every linear is a group of its own; that of
  /// an embedding reads token ids.
  var inputGroups: [InputGroup] { get }
  /// Whether a linear is touched only by passes that are told so by name: the embedding, the head, a router.
  func isNamedOnly(_ linear: LinearName) -> Bool
  /// A norm's name in the whole model.
  func fullName(ofNorm norm: String) -> String
  /// The tensor of a norm's weight in the whole model.
  func weightName(ofNorm norm: String) -> String
  /// Makes a change to the part if it is a decoder block.
  mutating func withBlock(_ change: (inout Block) throws -> Void) rethrows
}

extension ModelPart {
  public var otherTensors: [(name: String, tensor: Tensor)] { [] }
  public var inputGroups: [InputGroup] { linears.keys.sorted { $0.rawValue < $1.rawValue }.map { InputGroup([$0]) } }
  public func isNamedOnly(_ linear: LinearName) -> Bool { true }
  public func fullName(ofNorm norm: String) -> String { norm }
  public func weightName(ofNorm norm: String) -> String { fullName(ofNorm: norm) + ".weight" }
  public mutating func withBlock(_ change: (inout Block) throws -> Void) rethrows {}

  /// A linear's name in the whole model, such as `model.layers.0.mlp.down_proj`.
  public func fullName(of linear: LinearName) -> String { prefix + linear.rawValue }

  /// - Precondition: the part has a linear of this name.
  public subscript(name: LinearName) -> Linear {
    get {
      guard let linear = linears[name] else { preconditionFailure("\(self.name) has no linear \(name)") }
      return linear
    }
    set { linears[name] = newValue }
  }

  /// Gives back the pages of weights that are still in their files; they come back when they are needed.
  package func releasePages() {
    for linear in linears.values {
      let factors = (linear.weight as? FactoredWeight).map { [$0.input, $0.output] }
      for weight in factors ?? [linear.weight] {
        (weight as? StoredWeight)?.tensor.releasePages()
        (weight as? BlockQuantizedMatrix)?.blocks.releasePages()
        for tensor in (weight as? ForeignWeight)?.tensors ?? [] { tensor.releasePages() }
      }
    }
  }

  /// The same part with the factors of every linear multiplied out.
  public func merged() -> Self {
    var part = self
    for (name, linear) in linears where linear.weight is FactoredWeight { part[name].weight = linear.weight.dense() }
    return part
  }

  /// The first linear, by name, whose weight or bias holds what is not finite.
  ///
  /// - Parameter revisions: of linears that need not be looked at again.
  package func nonfiniteLinear(besides revisions: [LinearName: Linear.Revision] = [:]) -> LinearName? {
    linears.sorted { $0.key.rawValue < $1.key.rawValue }.first { name, linear in
      linear.revision != revisions[name]
        && (linear.weight.holdsNonfinite || linear.bias?.withUnsafeBufferPointer(Kernel.hasNonfinite) == true)
    }?.key
  }
}
