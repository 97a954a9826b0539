public import Foundation

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

  /// Opens a Hugging Face directory of safetensors, in one file or sharded; a directory that holds one GGUF file instead; or such a file.
  ///
  /// - Throws: `CheckpointError` for whatever is missing or malformed.
  public init(_ directory: URL) throws(CheckpointError) {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: directory.path, isDirectory: &isDirectory) else {
      throw .missingFile(path: directory.path)
    }
    guard isDirectory.boolValue else {
      guard directory.pathExtension == "gguf" else {
        throw .unreadable(path: directory.path, reason: "a model directory or a .gguf file is needed")
      }
      try self.init(gguf: directory)
      return
    }
    if let file = try Self.ggufFile(in: directory) {
      try self.init(gguf: file)
      return
    }
    let config = try ModelConfig(contentsOf: directory.appending(path: "config.json"))
    let index = directory.appending(path: "model.safetensors.index.json")
    let tensors: any TensorSource =
      FileManager.default.fileExists(atPath: index.path)
      ? try ShardedSafetensors(index: index) : try SafetensorsFile(Self.weights(in: directory))
    self.init(directory: directory, config: config, tensors: tensors)
  }

  private init(gguf file: URL) throws(CheckpointError) {
    let tensors = try GGUFCheckpoint(try GGUFFile(file))
    self.init(directory: file.deletingLastPathComponent(), config: try tensors.config(), tensors: tensors)
  }

  /// The GGUF file of a directory without safetensors.
  private static func ggufFile(in directory: URL) throws(CheckpointError) -> URL? {
    let files = (try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)) ?? []
    let found = files.filter { $0.pathExtension == "gguf" }.sorted { $0.lastPathComponent < $1.lastPathComponent }
    guard !found.isEmpty, !files.contains(where: { $0.lastPathComponent.contains(".safetensors") }) else { return nil }
    guard found.count == 1 else {
      throw .unreadable(
        path: directory.path,
        reason: "\(found.count) GGUF files; name one of them: \(found.map(\.lastPathComponent).joined(separator: ", "))")
    }
    return found[0]
  }

  /// `model.safetensors`, or the only file of its kind where an older tool gave it another name.
  private static func weights(in directory: URL) -> URL {
    let usual = directory.appending(path: "model.safetensors")
    guard !FileManager.default.fileExists(atPath: usual.path),
      let files = try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
    else { return usual }
    let others = files.filter { $0.pathExtension == "safetensors" }
    return others.count == 1 ? others[0] : usual
  }

  /// Files that travel with the weights unchanged: tokenizer, generation settings, licences, model cards.
  ///
  /// Weights, their index, what describes them, and what an earlier run of this program wrote (recipe and report) stay behind.
  public func companionFiles() -> [URL] {
    let files = (try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: [.isRegularFileKey])) ?? []
    let own: Set = ["config.json", "quantize_config.json", "quant_config.json", "recipe.yaml", "report.json"]
    let weights: Set = ["safetensors", "bin", "pt", "pth", "gguf", "h5", "onnx", "msgpack", "partial"]
    return files.filter { file in
      let name = file.lastPathComponent
      return (try? file.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile) == true && !own.contains(name)
        && !weights.contains(file.pathExtension) && !name.hasSuffix(".index.json") && !name.hasPrefix(".")
    }.sorted { $0.lastPathComponent < $1.lastPathComponent }
  }

  /// Bytes of all tensors.
  public var byteCount: Int { tensors.names.reduce(0) { $0 + (tensors.info($1)?.byteCount ?? 0) } }
}
