public import Foundation

/// A model directory: configuration, tokenizer files, and lazily read tensors.
public struct Checkpoint: Sendable {
  public let directory: URL
  public let config: ModelConfig
  public let tensors: any TensorSource
  /// The files that were opened, as they were then.
  public let stamps: [FileStamp]
  /// Whether it was opened as a file beside which no configuration lies, so that its directory is not the model's.
  let standsAlone: Bool

  public init(directory: URL, config: ModelConfig, tensors: any TensorSource) {
    self.init(directory: directory, config: config, tensors: tensors, files: [], standsAlone: false)
  }

  private init(directory: URL, config: ModelConfig, tensors: any TensorSource, files: [URL], standsAlone: Bool) {
    self.directory = directory
    self.config = config
    self.tensors = tensors
    self.standsAlone = standsAlone
    stamps = (files + tensors.files).compactMap { FileStamp(of: $0) }
  }

  /// Opens a model directory, or one file of weights; what the weights lie in is told by the files themselves.
  ///
  /// Of several kinds in a directory the first of these is read: safetensors, GGUF, PyTorch, anything else that is the only one. The
  /// configuration is `config.json`; files that describe themselves (GGUF, llama2.c) need none, and
  /// KerasHub's own and Meta's `params.json` are translated.
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
      self.init(directory: directory, config: config, tensors: tensors, files: [url, URL(filePath: config.path)], standsAlone: false)
    case .file(let url, let container):
      let configuration = directory.appending(path: "config.json")
      if [.pytorch, .safetensors].contains(container), FileManager.default.fileExists(atPath: url.path),
        !FileManager.default.fileExists(atPath: configuration.path)
      {
        let tensors = try container.open(url).tensors
        guard MetaCheckpoint.recognizes(tensors) else { throw .missingFile(path: configuration.path) }
        let translated = try MetaCheckpoint(tensors, in: directory)
        let parameters = directory.appending(path: MetaCheckpoint.parametersName)
        self.init(
          directory: directory, config: try translated.config(), tensors: translated, files: [parameters], standsAlone: false)
        return
      }
      // A configuration that cannot be read is the first thing to hear of.
      let written = try container.isSelfDescribing(beside: configuration) ? nil : try ModelConfig(contentsOf: configuration)
      let (tensors, own) = try container.open(url)
      guard let config = written ?? own else { throw .missingFile(path: configuration.path) }
      let standsAlone = !isDirectory.boolValue && !FileManager.default.fileExists(atPath: configuration.path)
      self.init(
        directory: directory, config: config, tensors: tensors,
        files: [url] + (written == nil && container != .hdf5 ? [] : [configuration]), standsAlone: standsAlone)
    }
  }

  /// What is read for as long as the checkpoint is in use: its directory, unless that is not the model's own, and the files that were opened.
  public var inputs: [URL] { (standsAlone ? [] : [directory]) + stamps.map { URL(filePath: $0.path) } }

  /// - Throws: `CheckpointError.changed` for the first file that is not what it was when the checkpoint was opened.
  public func checkUnchanged() throws(CheckpointError) { for stamp in stamps { try stamp.check() } }

  /// Bytes of the files that the weights lie in, which may be packed, and which links may lead to; of the tensors, where they lie in memory.
  public var fileByteCount: Int {
    let sizes = tensors.files.map { FileStamp(of: $0)?.size ?? 0 }
    return sizes.isEmpty ? byteCount : sizes.reduce(0, +)
  }

  /// Bytes of all tensors.
  public var byteCount: Int { tensors.names.reduce(0) { $0 + (tensors.info($1)?.byteCount ?? 0) } }
}
