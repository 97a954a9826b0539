public import Foundation
public import Tensors

/// One GGUF file, mapped: opening reads the header, a tensor costs nothing until its bytes are touched. Names are the file's own.
public struct GGUFFile: TensorSource {
  public let path: String
  public let names: [String]
  package let header: GGUFHeader
  /// By the bytes of the name: equal strings may be different names, because Swift compares canonically.
  private let entries: [[UInt8]: GGUFHeader.Entry]
  private let data: Data

  public var metadata: GGUFMetadata { header.metadata }

  /// - Throws: `CheckpointError` for a missing file and for everything the format's rules reject.
  public init(_ url: URL) throws(CheckpointError) {
    path = url.path
    data = try MappedFile.open(url)
    let (path, data) = (path, data)
    let parsed: Result<GGUFHeader, CheckpointError> = data.withUnsafeBytes { bytes in
      do throws(CheckpointError) { return .success(try GGUFHeader(parsing: bytes, path: path)) } catch { return .failure(error) }
    }
    header = try parsed.get()
    names = header.entries.map(\.name)
    entries = Dictionary(header.entries.map { (Array($0.name.utf8), $0) }) { _, last in last }
  }

  public var files: [URL] { [URL(filePath: path)] }

  public func info(_ name: String) -> TensorInfo? {
    entries[Array(name.utf8)].map { TensorInfo(type: $0.type, shape: $0.shape) }
  }

  /// Plain floats under their shape; blocks as bytes, [rows × bytes of a row].
  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let entry = entries[Array(name.utf8)] else { throw .missingTensor(name: name) }
    let begin = data.startIndex + header.dataStart + entry.offset
    let bytes = data[begin..<begin + entry.byteCount]
    guard entry.type.dtype == nil else { return Tensor(dtype: entry.type.dtype!, shape: entry.shape, bytes: bytes, isMapped: true) }
    let rowBytes = entry.type.byteCount(columns: entry.shape.last ?? 0)
    return Tensor(
      dtype: .uint8, shape: [entry.shape.dropLast().reduce(1, *), rowBytes], bytes: bytes, isMapped: true)
  }
}
