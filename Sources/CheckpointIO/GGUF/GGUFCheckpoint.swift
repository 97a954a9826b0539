public import Foundation
internal import StrictJSON
public import Tensors

/// A GGUF file seen as a Hugging Face checkpoint: its names, its order of rows, its norms, every expert apart, its configuration.
public struct GGUFCheckpoint: TensorSource {
  public let file: GGUFFile
  public let names: [String]
  private let keys: GGUFKeys
  private let stored: [String: GGUFNames.Place]

  /// - Throws: `CheckpointError` for an architecture or a tensor whose place in the model is not known.
  public init(_ file: GGUFFile) throws(CheckpointError) {
    self.file = file
    let outline = GGUFKeys.Outline(
      shape: { file.info($0)?.shape }, tensorCount: file.names.count, rotaryFactors: try GGUFRotary.Factors(in: file))
    keys = try GGUFKeys(file.metadata, path: file.path, outline)
    let architecture = keys.architecture
    var (names, stored): ([String], [String: GGUFNames.Place]) = ([], [:])
    // Factors of the rotary frequencies are part of the configuration.
    for name in file.names where !GGUFRotary.Factors.names.contains(name) {
      let isStack = architecture.names.isStack(name)
      let count = isStack ? file.info(name)?.shape.first ?? 0 : 1
      guard (1...Self.mostExperts).contains(count), !isStack || file.info(name)?.shape.count ?? 0 > 1 else {
        throw .malformedTensor(
          path: file.path, tensor: name, offset: 0, reason: "\(count) experts, where 1 to \(Self.mostExperts) are read")
      }
      for index in 0..<count {
        guard let translated = architecture.names.huggingFace(of: name, expert: index) else {
          throw .malformedTensor(
            path: file.path, tensor: name, offset: 0,
            reason: "no part of a \(architecture.name) model that is known here has this name")
        }
        names.append(translated)
        stored[translated] = GGUFNames.Place(name: name, expert: isStack ? index : nil)
      }
    }
    self.names = names
    self.stored = stored
  }

  /// Every expert gets a name of its own, so that a damaged number must not make billions.
  private static let mostExperts = 65_536

  public func config() throws(CheckpointError) -> ModelConfig { try keys.config() }

  public var files: [URL] { file.files }

  public func info(_ name: String) -> TensorInfo? {
    guard let place = stored[name], let info = file.info(place.name) else { return nil }
    var shape = place.expert == nil ? info.shape : Array(info.shape.dropFirst())
    if isRow(place), shape.count == 1 { shape = [1] + shape }
    if let blocks = info.blocks { return TensorInfo(type: blocks, shape: shape) }
    return TensorInfo(dtype: info.dtype, shape: isTransposed(place, shape) ? shape.reversed() : shape)
  }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let place = stored[name], let info = file.info(place.name) else { throw .missingTensor(name: name) }
    var tensor = try file.tensor(place.name)
    if let expert = place.expert {
      let count = info.shape[0]
      // Blocks come as rows of bytes, all experts' one after the other.
      let rows = tensor.shape[0] / max(1, count)
      tensor = info.blocks == nil ? tensor.entry(expert) : tensor.entries(expert * rows..<(expert + 1) * rows)
    }
    if let rows = tensor.shape.first, let order = try keys.rowOrder(of: place.name, rows: rows) {
      tensor = tensor.rows(inOrder: GGUFRows.inverse(order))
    }
    guard info.blocks == nil else { return tensor }
    if isRow(place), tensor.shape.count == 1 { tensor = Tensor(dtype: tensor.dtype, shape: [1] + tensor.shape, bytes: tensor.bytes) }
    if isTransposed(place, tensor.shape) { return transposed(tensor) }
    let offset = keys.architecture.normOffset
    guard offset != 0, place.name.hasSuffix("norm.weight"), tensor.dtype.isReadableAsFloat else { return tensor }
    return Tensor(tensor.floats().map { $0 - offset }, shape: tensor.shape, dtype: .float32)
  }

  /// Whether the tensor is a vector here and a matrix of one row in Hugging Face's checkpoints.
  private func isRow(_ place: GGUFNames.Place) -> Bool { GGUFNames.module(of: place.name) == GGUFArchitecture.sharedExpertGate }

  private func isTransposed(_ place: GGUFNames.Place, _ shape: [Int]) -> Bool {
    keys.architecture.storesTransposed && shape.count == 2 && GGUFNames.block(of: place.name) != nil
  }

  private func transposed(_ tensor: Tensor) -> Tensor {
    let shape = [tensor.shape[1], tensor.shape[0]]
    let view = StridedView(shape: shape, strides: [1, tensor.shape[1]])
    let bytes = view.gathered(from: tensor.bytes, elementSize: tensor.dtype.bitCount / 8)
    return Tensor(dtype: tensor.dtype, shape: shape, bytes: bytes)
  }
}

extension GGUFArchitecture {
  /// What weighs the shared expert: in some files a vector.
  package static let sharedExpertGate = "ffn_gate_inp_shexp"
}
