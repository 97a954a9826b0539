public import Foundation
internal import Tensors

/// Writes `model.h5`, one dataset for every tensor under its own name, and the files beside it.
public actor HDF5Writer: CheckpointWriter {
  public static let fileName = "model.h5"
  public nonisolated let stage: StagedDirectory
  private var output: HDF5Output?

  /// - Parameter destination: the final directory; refused if it exists, unless `overwrite`, which replaces an output of this program.
  public init(to destination: URL, overwrite: Bool = false) throws(CheckpointError) {
    try self.init(into: try StagedDirectory(for: destination, overwrite: overwrite))
  }

  /// - Parameter stage: the directory to fill.
  public init(into stage: StagedDirectory) throws(CheckpointError) {
    self.stage = stage
    output = try HDF5Output(stage.url(Self.fileName))
  }

  /// - Throws: `CheckpointError` for a type HDF5 has no name for, a name that it cannot have, and what the disk says.
  public func append(_ tensors: [NamedTensor]) throws(CheckpointError) {
    for named in tensors {
      guard named.blocks == nil else { throw .unusableType(tensor: named.name, dtype: named.info.typeName, use: "an HDF5 dataset") }
      guard !named.name.isEmpty, named.name != ".", !named.name.contains("/"), !named.name.utf8.contains(0) else {
        throw .cannotWrite(path: stage.destination.path, reason: "\"\(named.name)\" cannot be the name of an HDF5 dataset")
      }
      let tensor = named.tensor
      try output?.append(tensor, named.name)
      tensor.releasePages()
    }
  }

  public func complete(files: [CheckpointFile]) throws(CheckpointError) {
    try output?.finish()
    output = nil
    do {
      let file = try FileHandle(forUpdating: stage.url(Self.fileName))
      try file.synchronize()
      try file.close()
      for file in files { try stage.write(file) }
    } catch { throw stage.failure(stage.destination.path, error) }
  }

  public func abandon() {
    output = nil
    stage.abandon()
  }
}
