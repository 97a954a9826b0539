public import Tensors

/// What a container's header says of a tensor.
public struct TensorInfo: Sendable, Equatable {
  public var dtype: DType
  public var shape: [Int]

  public init(dtype: DType, shape: [Int]) {
    self.dtype = dtype
    self.shape = shape
  }

  public var elementCount: Int { shape.reduce(1, *) }
  public var byteCount: Int { elementCount * dtype.bitCount / 8 }
}

/// Named tensors that cost nothing until they are asked for.
public protocol TensorSource: Sendable {
  /// All names, in the order of the data.
  var names: [String] { get }
  func info(_ name: String) -> TensorInfo?
  /// The tensor's bytes, usually a slice of a mapping.
  func tensor(_ name: String) throws(CheckpointError) -> Tensor
}

/// A tensor under the name a checkpoint gives it.
public struct NamedTensor: Sendable {
  public let name: String
  public let tensor: Tensor

  public init(name: String, tensor: Tensor) {
    self.name = name
    self.tensor = tensor
  }
}

/// Tensors held in memory: what tests and converters use.
public struct MemoryTensorSource: TensorSource {
  public let names: [String]
  private let tensors: [String: Tensor]

  public init(_ tensors: [NamedTensor]) {
    names = tensors.map(\.name)
    self.tensors = Dictionary(tensors.map { ($0.name, $0.tensor) }) { _, last in last }
  }

  public func info(_ name: String) -> TensorInfo? { tensors[name].map { TensorInfo(dtype: $0.dtype, shape: $0.shape) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let tensor = tensors[name] else { throw .missingTensor(name: name) }
    return tensor
  }
}
