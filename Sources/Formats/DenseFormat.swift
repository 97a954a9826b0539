public import CheckpointIO
public import Models
public import StrictJSON

/// A format whose weights are all dense numbers in the type the checkpoint came in; what differs is the container.
public protocol DenseFormat: CheckpointFormat {}

extension DenseFormat {
  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    try refuseRuntimeQuantization(of: linear, module: module)
    return [plain(linear, module: module)]
  }

  public var holdsAnyTensors: Bool { true }

  /// What is rounded is numbers, in the family's own stacks.
  public var joinsExperts: Bool { true }

  /// Plain weights need no reader.
  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? { nil }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    config.withoutQuantization
  }
}
