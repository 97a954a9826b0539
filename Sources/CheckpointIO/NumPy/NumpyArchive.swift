public import Foundation
public import Tensors

/// Arrays in a `.npz` file, as `numpy.savez`, `numpy.savez_compressed` and MLX write it: a ZIP file of `NAME.npy`.
///
/// Two bytes without a type (`V2`) are read as BF16, which NumPy has no name for. Arrays that are stored, little-endian and in C order are
/// slices of the mapping; all others are copied when they are asked for.
public struct NumpyArchive: TensorSource {
  public let path: String
  public let names: [String]
  private let archive: ZipArchive
  private let headers: [[UInt8]: NumpyHeader]

  private static let suffix = ".npy"

  /// - Throws: `CheckpointError` for everything that is wrong with the archive or the header of an array.
  public init(_ url: URL) throws(CheckpointError) {
    archive = try ZipArchive(url)
    path = url.path
    var (names, headers): ([String], [[UInt8]: NumpyHeader]) = ([], [:])
    for entry in archive.entries {
      func malformed(_ reason: String) -> CheckpointError {
        .malformedTensor(path: url.path, tensor: entry.name, offset: entry.start, reason: reason)
      }
      guard entry.name.hasSuffix(Self.suffix) else { throw malformed("no array; a .npz file holds nothing else") }
      let prefix = try archive.prefix(of: entry, NumpyHeader.limit + 12)
      let parsed: Result<NumpyHeader, NumpyHeader.Malformed> = prefix.withUnsafeBytes { bytes in
        do throws(NumpyHeader.Malformed) { return .success(try NumpyHeader(parsing: bytes)) } catch { return .failure(error) }
      }
      switch parsed {
      case .failure(let error): throw malformed(error.reason)
      case .success(let header):
        guard header.byteCount == entry.size - header.dataStart else {
          throw malformed("shape \(header.shape) takes \(header.byteCount) bytes, \(entry.size - header.dataStart) follow the header")
        }
        let name = String(entry.name.dropLast(Self.suffix.count))
        names.append(name)
        headers[Array(name.utf8)] = header
      }
    }
    self.names = names
    self.headers = headers
  }

  public var files: [URL] { [URL(filePath: path)] }

  public func info(_ name: String) -> TensorInfo? {
    headers[Array(name.utf8)].map { TensorInfo(dtype: $0.dtype, shape: $0.shape) }
  }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let header = headers[Array(name.utf8)], let entry = archive[name + Self.suffix] else { throw .missingTensor(name: name) }
    let size = header.dtype.bitCount / 8
    var elements = try archive.bytes(of: entry).dropFirst(header.dataStart)
    var isMapped = entry.isStored
    if header.isFortranOrder, !StridedView(columnMajor: header.shape).isContiguous {
      elements = StridedView(columnMajor: header.shape).gathered(from: elements, elementSize: size)
      isMapped = false
    }
    if header.isBigEndian {
      elements = elements.swapped(size)
      isMapped = false
    }
    return Tensor(dtype: header.dtype, shape: header.shape, bytes: elements, isMapped: isMapped)
  }
}

extension Data {
  /// The bytes of every element the other way round.
  fileprivate func swapped(_ size: Int) -> Data {
    var result = Data(self)
    result.withUnsafeMutableBytes { bytes in
      for element in 0..<bytes.count / size { bytes[element * size..<(element + 1) * size].reverse() }
    }
    return result
  }
}
