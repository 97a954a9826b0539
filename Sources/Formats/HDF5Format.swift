public import CheckpointIO

/// Dense weights as datasets of one `model.h5`, in the type the checkpoint came in: what h5py and h5dump read.
public struct HDF5Format: DenseFormat {
  public static let name = "hdf5"
  public static let summary = "plain dense weights in one HDF5 file, chunked, shuffled and deflated"
  public init() {}

  public func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter {
    try HDF5Writer(into: stage)
  }
}
