public import Foundation
public import Tensors

/// One safetensors file, mapped: opening reads the header, a tensor costs nothing until its bytes are touched.
public struct SafetensorsFile: TensorSource {
  public let path: String
  public let names: [String]
  package let header: SafetensorsHeader
  /// By the bytes of the name: equal strings may be different names, because Swift compares canonically.
  private let entries: [[UInt8]: SafetensorsHeader.Entry]
  private let data: Data
  private let dataStart: Int

  /// - Throws: `CheckpointError` for a missing file and for everything the format's rules reject.
  public init(_ url: URL) throws(CheckpointError) {
    path = url.path
    data = try MappedFile.open(url)
    let (path, data) = (path, data)
    let parsed: Result<SafetensorsHeader, CheckpointError> = data.withUnsafeBytes { bytes in
      do throws(CheckpointError) { return .success(try SafetensorsHeader(parsing: bytes, path: path)) } catch { return .failure(error) }
    }
    header = try parsed.get()
    names = header.entries.map(\.name)
    entries = Dictionary(header.entries.map { (Array($0.name.utf8), $0) }) { _, last in last }
    dataStart = data.count - header.dataLength
  }

  public var files: [URL] { [URL(filePath: path)] }

  public func info(_ name: String) -> TensorInfo? { entries[Array(name.utf8)]?.info }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let entry = entries[Array(name.utf8)] else { throw .missingTensor(name: name) }
    let begin = data.startIndex + dataStart + entry.range.lowerBound
    return Tensor(dtype: entry.info.dtype, shape: entry.info.shape, bytes: data[begin..<begin + entry.range.count], isMapped: true)
  }
}
