public import CheckpointIO

/// How the weights of a compressed checkpoint are found and decoded: what a format gives for a checkpoint it recognises.
public struct WeightReader: Sendable {
  /// What follows a module's name in those of the tensors that together store it, such as `weight_packed` and `weight.absmax`.
  public var components: Set<String>
  /// Whether there may be nothing else below a compressed module but its bias: what is there all the same may belong to the weight, and makes
  /// the checkpoint one that is not read.
  public var knowsAllComponents = false
  /// What runtimes of the format do that is not done here; for the report.
  public var remarks: [String] = []
  /// Last components of modules inside a module that together store it, such as the factors `A` and `B`.
  public var parts: Set<String>
  /// Whether a tensor is read with modules whose names are not in its own, such as a stack of compressed experts.
  public var covers: @Sendable (_ tensor: String) -> Bool
  /// Whether the module is stored the compressed way; otherwise a plain `weight` tensor is what remains.
  public var holds: @Sendable (_ module: String, _ source: any TensorSource) -> Bool
  public var weight: @Sendable (_ module: String, _ source: any TensorSource) throws(CheckpointError) -> any Weight
  /// How the runtime quantizes what the module reads.
  public var input: @Sendable (_ module: String, _ source: any TensorSource) throws(CheckpointError) -> InputQuantization?
  /// How the keys and values of the attention under this prefix, such as `model.layers.0.self_attn`, are stored in the cache.
  public var cache: @Sendable (_ attention: String, _ source: any TensorSource) throws(CheckpointError) -> CacheQuantization?

  public init(
    components: Set<String>, parts: Set<String> = [], covers: @escaping @Sendable (String) -> Bool = { _ in false },
    holds: @escaping @Sendable (String, any TensorSource) -> Bool,
    weight: @escaping @Sendable (String, any TensorSource) throws(CheckpointError) -> any Weight,
    input: @escaping @Sendable (String, any TensorSource) throws(CheckpointError) -> InputQuantization? = { _, _ in nil },
    cache: @escaping @Sendable (String, any TensorSource) throws(CheckpointError) -> CacheQuantization? = { _, _ in nil }
  ) {
    self.components = components
    self.parts = parts
    self.covers = covers
    self.holds = holds
    self.weight = weight
    self.input = input
    self.cache = cache
  }
}
