public import CheckpointIO
public import Foundation
public import Models
public import StrictJSON

/// Dense weights as NumPy arrays in one `model.npz`, in the type the checkpoint came in: what NumPy and MLX load.
public struct NumpyFormat: CheckpointFormat {
  public static let name = "npz"
  public static let summary = "plain dense weights as NumPy arrays in one file; BF16 as two bytes without a type"
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
    try NumpyArchiveWriter(to: directory, overwrite: overwrite)
  }
}
