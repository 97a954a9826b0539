public import Foundation
internal import Tensors

/// Writes `model.npz`, which `numpy.load` and `mlx.core.load` read, and the files beside it. BF16 is written as two bytes without a type (`V2`),
/// as MLX and ml_dtypes do.
public actor NumpyArchiveWriter: CheckpointWriter {
  public static let fileName = "model.npz"
  public nonisolated let stage: StagedDirectory
  private let file: FileHandle
  private var archive: ZipWriter
  private var names: Set<[UInt8]> = []

  /// - Parameter destination: the final directory; refused if it exists, unless `overwrite`, which replaces an output of this program.
  public init(to destination: URL, overwrite: Bool = false) throws(CheckpointError) {
    try self.init(into: try StagedDirectory(for: destination, overwrite: overwrite))
  }

  /// - Parameter stage: the directory to fill.
  public init(into stage: StagedDirectory) throws(CheckpointError) {
    self.stage = stage
    file = try stage.create(Self.fileName)
    archive = ZipWriter(to: file)
  }

  /// - Throws: `CheckpointError` for a type NumPy has no name for, a name that was used before, and what the disk says.
  public func append(_ tensors: [NamedTensor]) throws(CheckpointError) {
    for named in tensors {
      guard named.blocks == nil, let header = NumpyHeader(dtype: named.info.dtype, shape: named.info.shape).serialized else {
        throw .unusableType(tensor: named.name, dtype: named.info.typeName, use: "a NumPy array")
      }
      guard names.insert(Array(named.name.utf8)).inserted else { throw .cannotWrite(path: named.name, reason: "the name occurs twice") }
      let tensor = named.tensor
      do { try archive.append(named.name + ".npy", [Data(header), tensor.bytes]) } catch {
        throw stage.failure(stage.destination.path, error)
      }
      tensor.releasePages()
    }
  }

  public func complete(files: [CheckpointFile]) throws(CheckpointError) {
    do {
      try archive.finish()
      try file.synchronize()
      try file.close()
      for file in files { try stage.write(file) }
    } catch { throw stage.failure(stage.destination.path, error) }
  }

  public func abandon() {
    try? file.close()
    stage.abandon()
  }
}
