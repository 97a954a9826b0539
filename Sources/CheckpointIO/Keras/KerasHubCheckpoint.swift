public import Foundation
internal import StrictJSON
public import Tensors

/// The weights of a KerasHub preset seen as a Hugging Face checkpoint: its names, and its matrices in the place of kernels.
public struct KerasHubCheckpoint: TensorSource {
  public let names: [String]
  private let weights: KerasWeights
  private let places: [String: KerasHubPlace]
  private let preset: KerasHubPreset
  private let isTied: Bool

  /// - Throws: `CheckpointError` for variables that are missing, of another shape, or unknown.
  init(_ weights: KerasWeights, preset: KerasHubPreset) throws(CheckpointError) {
    (self.weights, self.preset) = (weights, preset)
    isTied = weights.info("layers/reversible_embedding/vars/1") == nil
    let places = preset.places(isTied: isTied)
    for place in places {
      guard let info = weights.info(place.path) else { throw .missingTensor(name: place.path) }
      guard place.shape(of: info.shape) != nil else {
        throw .wrongShape(tensor: place.path, expected: Array(repeating: 0, count: place.axes.count), found: info.shape)
      }
    }
    let known = Set(places.map(\.path))
    if let other = weights.names.first(where: { !known.contains($0) }) {
      throw .unusableType(
        tensor: other, dtype: "a variable", use: "a part of a \(preset.family.rawValue): none that is known here has this name")
    }
    names = places.map(\.name)
    self.places = Dictionary(places.map { ($0.name, $0) }) { first, _ in first }
  }

  func config() throws(CheckpointError) -> ModelConfig { try preset.config(isTied: isTied) }

  public var files: [URL] { weights.files }
  public var remarks: [String] { weights.remarks }

  public func info(_ name: String) -> TensorInfo? {
    guard let place = places[name], let info = weights.info(place.path), let shape = place.shape(of: info.shape) else { return nil }
    return TensorInfo(dtype: info.dtype, shape: shape)
  }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let place = places[name] else { throw .missingTensor(name: name) }
    return place.tensor(from: try weights.tensor(place.path))
  }
}
