import CompressKit
import Foundation

extension FuzzedReader {
  static let containers = [
    container("safetensors", "safetensors") { try SafetensorsFile($0) },
    container("gguf", "gguf") { try GGUFFile($0) },
    container("gguf-model", "gguf") { try Checkpoint($0).tensors },
    container("pytorch", "pt") { try PyTorchFile($0) },
    container("pickle", "pt", wrap: pickled) { try PyTorchFile($0) },
    container("npz", "npz") { try NumpyArchive($0) },
    container("npy", "npz", wrap: { StoredArchive.bytes([("a.npy", $0)]) }) { try NumpyArchive($0) },
  ]

  /// Mapped files need a file; this one is in memory.
  private static func container(
    _ name: String, _ suffix: String, wrap: @escaping @Sendable (Data) -> Data = { $0 },
    _ open: @escaping @Sendable (URL) throws -> any TensorSource
  ) -> FuzzedReader {
    let url = URL(filePath: "/dev/shm/compress-fuzz-\(ProcessInfo.processInfo.processIdentifier).\(suffix)")
    return FuzzedReader(
      name: name,
      read: { bytes in
        try wrap(bytes).write(to: url)
        defer { unlink(url.path) }
        let source = try open(url)
        for name in source.names {
          // Every byte is there, and a mapped one can be touched.
          _ = try source.tensor(name).bytes.reduce(UInt8(0), &+)
        }
      }, allows: { $0 is CheckpointError })
  }

  /// A pickle in the archive that it comes in, so that checksums are right and its opcodes are reached.
  @Sendable private static func pickled(_ pickle: Data) -> Data {
    StoredArchive.bytes([
      ("x/data.pkl", pickle), ("x/data/0", Data(count: 96)), ("x/data/1", Data(count: 8)), ("x/data/2", Data(count: 8)),
      ("x/data/3", Data(count: 24)),
    ])
  }
}
