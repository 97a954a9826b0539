public import CheckpointIO
public import Foundation
public import Models
public import StrictJSON

/// Dense weights as datasets of one `model.h5`, in the type the checkpoint came in: what h5py and h5dump read.
public struct HDF5Format: CheckpointFormat {
  public static let name = "hdf5"
  public static let summary = "plain dense weights in one HDF5 file, chunked, shuffled and deflated"
  public init() {}

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    try refuseRuntimeQuantization(of: linear, module: module)
    return [plain(linear, module: module)]
  }

  /// Plain weights need no reader.
  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? { nil }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    config.withoutQuantization
  }

  public func makeWriter(at directory: URL, shardLimit: Int, overwrite: Bool) throws(CheckpointError) -> any CheckpointWriter {
    try HDF5Writer(to: directory, overwrite: overwrite)
  }
}
