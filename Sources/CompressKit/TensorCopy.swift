public import CheckpointIO
public import Formats
public import Foundation
internal import Models
public import Passes
internal import StrictJSON
internal import Tensors

/// Puts the tensors of one container into another, without knowing what model they are of.
///
/// Names, types, shapes and bytes stay. Only ggml's blocks, for which no other container has a type, become the F32 numbers they stand for.
public struct TensorCopy: Sendable {
  public var format: any CheckpointFormat
  /// Whether an existing output is replaced once the new one is complete.
  public var overwrite: Bool
  /// Bytes of tensors in a shard.
  public var shardLimit: Int

  /// - Throws: `FormatError` for a format that needs to know the model.
  public init(to format: any CheckpointFormat, overwrite: Bool = false, shardLimit: Int = 5_000_000_000) throws(FormatError) {
    guard format.holdsAnyTensors else {
      throw .cannotStore(
        module: "the model", format: type(of: format).name,
        reason: "what model the tensors belong to has to be known for that; safetensors, npz and hdf5 take any")
    }
    (self.format, self.overwrite, self.shardLimit) = (format, overwrite, shardLimit)
  }

  /// Copies all tensors into a new directory; of a whole directory its other files too.
  ///
  /// - Throws: for what the container has no type or name for, and what the disk says; nothing exists under the name of `output` then.
  public func run(_ collection: TensorCollection, to output: URL, observer: any PipelineObserver = Silent()) async throws
    -> ConversionReport
  {
    // What travels is a directory's, and a configuration that is not understood is not read.
    let place = Checkpoint(
      directory: collection.directory, config: try ModelConfig(text: "{\"model_type\":\"\"}".utf8), tensors: collection.tensors)
    let inputs = place.inputs.filter { collection.isDirectory || $0 != collection.directory }
    let stage = try StagedDirectory(for: output, overwrite: overwrite, inputs: inputs)
    for remark in stage.remarks + collection.tensors.remarks { observer.observe(.remark(remark)) }
    do { return try await run(collection, place, into: stage, observer) } catch {
      stage.abandon()
      throw error
    }
  }

  private func run(
    _ collection: TensorCollection, _ place: Checkpoint, into stage: StagedDirectory, _ observer: any PipelineObserver
  ) async throws -> ConversionReport {
    let tensors = collection.tensors
    var report = ConversionReport(format: type(of: format).name, bytesBefore: place.fileByteCount, carriedTensors: [])
    var companions = Companions()
    if collection.isDirectory {
      companions = try place.travellers()
      let config = collection.directory.appending(path: "config.json")
      if FileManager.default.fileExists(atPath: config.path) {
        companions = companions.adding([CheckpointFile("config.json", .copy(of: config))])
      }
    }
    companions = try companions.gathered(in: stage)
    for remark in companions.remarks { observer.observe(.remark(remark)) }
    report.remarks = stage.remarks + tensors.remarks + companions.remarks
    observer.observe(.step("convert"))
    let writer = try format.makeWriter(into: stage, shardLimit: shardLimit)
    do {
      for name in tensors.names {
        try Task.checkCancellation()
        guard let info = tensors.info(name) else { throw CheckpointError.missingTensor(name: name) }
        var tensor = try tensors.tensor(name)
        if let blocks = info.blocks {
          tensor = Tensor(BlockQuantizedMatrix(blocks, blocks: tensor).dense().elements, shape: info.shape, dtype: .float32)
          report.dequantized += 1
        } else {
          report.carriedTensors.append(name)
        }
        try await writer.append([NamedTensor(name: name, tensor: tensor)])
      }
      try Task.checkCancellation()
      try await writer.complete(files: companions.files)
      try place.checkUnchanged()
      try stage.publish()
    } catch {
      await writer.abandon()
      throw error
    }
    report.bytesAfter = ConversionReport.weightBytes(in: stage.destination)
    return report
  }
}

extension ConversionReport {
  /// Bytes of the files of weights in a directory that a format has written.
  static func weightBytes(in directory: URL) -> Int {
    let files = (try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: [.fileSizeKey])) ?? []
    return files.filter { ["safetensors", "npz", "h5", "gguf"].contains($0.pathExtension) }
      .reduce(0) { $0 + ((try? $1.resourceValues(forKeys: [.fileSizeKey]).fileSize) ?? 0) }
  }
}

extension CheckpointError {
  /// Whether it says only that nobody told, or nobody here knows, what model the tensors are of.
  public var isAboutUnknownModel: Bool {
    switch self {
    case .unsupportedModel: return true
    case .missingFile(let path): return path.hasSuffix("/config.json")
    case .malformedConfiguration(let path, _):
      guard let data = try? Data(contentsOf: URL(filePath: path)), let json = try? JSON(parsing: data) else { return false }
      return json.members != nil && json["model_type"] == nil
    default: return false
    }
  }
}
