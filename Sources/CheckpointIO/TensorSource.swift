public import Foundation
public import Tensors

/// What a container's header says of a tensor.
public struct TensorInfo: Sendable, Equatable {
  public var dtype: DType
  public var shape: [Int]
  /// What the bytes are where ggml's blocks take the place of elements; `dtype` is then U8, and `shape` still counts weights.
  public private(set) var blocks: BlockType?

  public init(dtype: DType, shape: [Int]) {
    self.dtype = dtype
    self.shape = shape
  }

  /// - Precondition: blocks divide the last dimension.
  public init(type: BlockType, shape: [Int]) {
    self.init(dtype: type.dtype ?? .uint8, shape: shape)
    if type.dtype == nil {
      precondition((shape.last ?? 0) % type.blockLength == 0, "blocks of \(type.blockLength) do not divide the rows of \(shape)")
      blocks = type
    }
  }

  public var elementCount: Int { shape.reduce(1, *) }
  public var byteCount: Int { blocks.map { elementCount / $0.blockLength * $0.bytesPerBlock } ?? (elementCount * dtype.bitCount / 8) }
  /// The spelling of the type, such as `BF16` or `Q4_K`.
  public var typeName: String { blocks?.name ?? dtype.rawValue }
}

/// Named tensors that cost nothing until they are asked for.
public protocol TensorSource: Sendable {
  /// All names, in the order of the data.
  var names: [String] { get }
  /// The files the tensors lie in, where these are several; by default the one that was opened is all.
  var files: [URL] { get }
  func info(_ name: String) -> TensorInfo?
  /// The tensor's bytes, usually a slice of a mapping.
  ///
  /// - Throws: also for what the file holds and `names` leaves out, with the reason.
  func tensor(_ name: String) throws(CheckpointError) -> Tensor
  /// What was left out, and why; for the report.
  var remarks: [String] { get }
}

extension TensorSource {
  public var remarks: [String] { [] }
}

extension TensorSource {
  public var files: [URL] { [] }
}

/// A tensor under the name a checkpoint gives it.
public struct NamedTensor: Sendable {
  public let name: String
  /// What the bytes of `tensor`, [rows × bytes of a row], are; `nil` for elements of its own type.
  public let blocks: BlockType?
  private let content: Content

  private enum Content {
    case whole(Tensor)
    /// The entries of the first dimension, made when they are asked for.
    case entries(TensorInfo, @Sendable (Int) -> Tensor)
  }

  public init(name: String, tensor: Tensor, blocks: BlockType? = nil) {
    self.name = name
    self.blocks = blocks
    content = .whole(tensor)
  }

  /// A tensor that is never held as a whole, such as a stack of experts.
  ///
  /// - Parameter entry: makes an entry of the first dimension.
  public init(name: String, dtype: DType, shape: [Int], entry: @escaping @Sendable (Int) -> Tensor) {
    self.name = name
    blocks = nil
    content = .entries(TensorInfo(dtype: dtype, shape: shape), entry)
  }

  /// As a whole: what comes in entries is joined.
  public var tensor: Tensor {
    switch content {
    case .whole(let tensor): return tensor
    case .entries(let info, let entry):
      var bytes = Data(capacity: info.byteCount)
      for index in 0..<(info.shape.first ?? 0) { bytes += entry(index).bytes }
      return Tensor(dtype: info.dtype, shape: info.shape, bytes: bytes)
    }
  }

  /// Shows the tensor in parts, in their order, none of which is held longer than it is looked at.
  public func forEachPart<Failure: Error>(_ body: (Tensor) throws(Failure) -> Void) throws(Failure) {
    switch content {
    case .whole(let tensor):
      try body(tensor)
      tensor.releasePages()
    case .entries(let info, let entry):
      for index in 0..<(info.shape.first ?? 0) {
        let part = entry(index)
        try body(part)
        part.releasePages()
      }
    }
  }

  public var info: TensorInfo {
    switch content {
    case .entries(let info, _): return info
    case .whole(let tensor):
      guard let blocks else { return TensorInfo(dtype: tensor.dtype, shape: tensor.shape) }
      return TensorInfo(type: blocks, shape: [tensor.shape[0], tensor.shape[1] / blocks.bytesPerBlock * blocks.blockLength])
    }
  }
}

/// Tensors held in memory: what tests and converters use.
public struct MemoryTensorSource: TensorSource {
  public let names: [String]
  private let tensors: [String: NamedTensor]

  public init(_ tensors: [NamedTensor]) {
    names = tensors.map(\.name)
    self.tensors = Dictionary(tensors.map { ($0.name, $0) }) { _, last in last }
  }

  public func info(_ name: String) -> TensorInfo? { tensors[name]?.info }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let named = tensors[name] else { throw .missingTensor(name: name) }
    return named.tensor
  }
}
