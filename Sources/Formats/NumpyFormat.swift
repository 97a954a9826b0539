public import CheckpointIO

/// Dense weights as NumPy arrays in one `model.npz`, in the type the checkpoint came in: what NumPy and MLX load.
public struct NumpyFormat: DenseFormat {
  public static let name = "npz"
  public static let summary = "plain dense weights as NumPy arrays in one file; BF16 as two bytes without a type"
  public init() {}

  public func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter {
    try NumpyArchiveWriter(into: stage)
  }
}
