public import CheckpointIO
public import Foundation

/// Dense weights as datasets of one `model.h5`, in the type the checkpoint came in: what h5py and h5dump read.
public struct HDF5Format: DenseFormat {
  public static let name = "hdf5"
  public static let summary = "plain dense weights in one HDF5 file, chunked, shuffled and deflated"
  public init() {}

  public func makeWriter(at directory: URL, shardLimit: Int, overwrite: Bool) throws(CheckpointError) -> any CheckpointWriter {
    try HDF5Writer(to: directory, overwrite: overwrite)
  }
}
