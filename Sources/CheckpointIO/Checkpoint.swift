public import Foundation
internal import StrictJSON

/// A model directory: configuration, tokenizer files, and lazily read tensors.
public struct Checkpoint: Sendable {
  public let directory: URL
  public let config: ModelConfig
  public let tensors: any TensorSource

  public init(directory: URL, config: ModelConfig, tensors: any TensorSource) {
    self.directory = directory
    self.config = config
    self.tensors = tensors
  }

  /// Opens a model directory, or one file of weights; what the weights lie in is told by the files themselves.
  ///
  /// Of several kinds in a directory the first of these is read: safetensors, GGUF, PyTorch, anything else that is the only one. The
  /// configuration is `config.json`; files that describe themselves (GGUF, llama2.c) need none, and
  /// KerasHub's own is translated.
  ///
  /// - Throws: `CheckpointError` for whatever is missing or malformed.
  public init(_ place: URL) throws(CheckpointError) {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: place.path, isDirectory: &isDirectory) else { throw .missingFile(path: place.path) }
    let weights = isDirectory.boolValue ? try WeightFiles(in: place) : .file(place, try Container(of: place))
    let directory = isDirectory.boolValue ? place : place.deletingLastPathComponent()
    switch weights {
    case .index(let url, let container):
      let config = try ModelConfig(contentsOf: directory.appending(path: "config.json"))
      let tensors = try ShardedTensors(index: url) { url throws(CheckpointError) in try container.open(url).tensors }
      self.init(directory: directory, config: config, tensors: tensors)
    case .file(let url, let container):
      let configuration = directory.appending(path: "config.json")
      // A configuration that cannot be read is the first thing to hear of.
      let written = try container.isSelfDescribing(beside: configuration) ? nil : try ModelConfig(contentsOf: configuration)
      let (tensors, own) = try container.open(url)
      guard let config = written ?? own else { throw .missingFile(path: configuration.path) }
      self.init(directory: directory, config: config, tensors: tensors)
    }
  }

  /// Files that travel with the weights unchanged: tokenizer, generation settings, licences, model cards.
  ///
  /// Weights, their index, what describes them, and what an earlier run of this program wrote (recipe and report) stay behind.
  public func companionFiles() -> [URL] {
    let files = (try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: [.isRegularFileKey])) ?? []
    var own: Set = ["config.json", "quantize_config.json", "quant_config.json", "recipe.yaml", "report.json"]
    // The parts of a KerasHub preset name a class each; its tokenizer.json is no one else's.
    for name in ["metadata.json", "preprocessor.json", "task.json", "tokenizer.json"] {
      guard let text = try? Data(contentsOf: directory.appending(path: name)), let json = try? JSON(parsing: text) else { continue }
      if json["class_name"] != nil || json["keras_hub_version"] != nil { own.insert(name) }
    }
    let weights: Set = ["safetensors", "bin", "pt", "pth", "gguf", "h5", "onnx", "msgpack", "partial", "npz", "keras", "hdf5"]
    return files.filter { file in
      let name = file.lastPathComponent
      return (try? file.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile) == true && !own.contains(name)
        && !weights.contains(file.pathExtension) && !name.hasSuffix(".index.json") && !name.hasPrefix(".") && name != "model.weights.json"
    }.sorted { $0.lastPathComponent < $1.lastPathComponent }
  }

  /// Bytes of all tensors.
  public var byteCount: Int { tensors.names.reduce(0) { $0 + (tensors.info($1)?.byteCount ?? 0) } }
}
