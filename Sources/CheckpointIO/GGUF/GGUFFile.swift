public import Foundation
public import Tensors

/// A GGUF file, mapped: opening reads the header, a tensor costs nothing until its bytes are touched. Names are the file's own.
///
/// A file that was split, `NAME-00001-of-00003.gguf` and so on, is opened by any of its parts and reads as one.
public struct GGUFFile: TensorSource {
  /// Of the file, or of its first part.
  public let path: String
  public let names: [String]
  package let header: GGUFHeader
  /// By the bytes of the name: equal strings may be different names, because Swift compares canonically.
  private let entries: [[UInt8]: (part: Int, entry: GGUFHeader.Entry)]
  private let parts: [Part]

  private struct Part {
    let url: URL
    let data: Data
    let header: GGUFHeader

    init(_ url: URL) throws(CheckpointError) {
      self.url = url
      let data = try MappedFile.open(url)
      self.data = data
      header = try data.parse { bytes throws(CheckpointError) in try GGUFHeader(parsing: bytes, path: url.path) }
    }
  }

  public var metadata: GGUFMetadata { header.metadata }
  public var files: [URL] { parts.map(\.url) }

  /// - Throws: `CheckpointError` for a missing file or part of one, and for everything the format's rules reject.
  public init(_ url: URL) throws(CheckpointError) {
    let parts = try Self.parts(of: try Part(url))
    self.parts = parts
    path = parts[0].url.path
    header = parts[0].header
    var (names, entries): ([String], [[UInt8]: (part: Int, entry: GGUFHeader.Entry)]) = ([], [:])
    for (number, part) in parts.enumerated() {
      for entry in part.header.entries {
        names.append(entry.name)
        guard let other = entries.updateValue((number, entry), forKey: Array(entry.name.utf8)) else { continue }
        throw .malformedIndex(
          path: part.url.path, reason: "tensor \"\(entry.name)\" is in \(parts[other.part].url.lastPathComponent), too")
      }
    }
    (self.names, self.entries) = (names, entries)
    if parts.count > 1, let count = metadata[Split.tensorCount]?.integer, count != names.count {
      throw .malformedIndex(path: path, reason: "\(Split.tensorCount) is \(count), its \(parts.count) parts hold \(names.count)")
    }
  }

  public func info(_ name: String) -> TensorInfo? {
    entries[Array(name.utf8)].map { TensorInfo(type: $0.entry.type, shape: $0.entry.shape) }
  }

  /// Plain floats under their shape; blocks as bytes, [rows × bytes of a row].
  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let (number, entry) = entries[Array(name.utf8)] else { throw .missingTensor(name: name) }
    let part = parts[number]
    let bytes = part.data.slice(at: part.header.dataStart + entry.offset, count: entry.byteCount)
    guard entry.type.dtype == nil else { return Tensor(dtype: entry.type.dtype!, shape: entry.shape, bytes: bytes, isMapped: true) }
    let rowBytes = entry.type.byteCount(columns: entry.shape.last ?? 0)
    return Tensor(
      dtype: .uint8, shape: [entry.shape.dropLast().reduce(1, *), rowBytes], bytes: bytes, isMapped: true)
  }
}

// MARK: - Parts

extension GGUFFile {
  /// What `gguf-split` of llama.cpp says of a part.
  private enum Split {
    static let number = "split.no"
    static let count = "split.count"
    static let tensorCount = "split.tensors.count"
  }

  /// All parts of the file that one of them belongs to, in their order.
  private static func parts(of part: Part) throws(CheckpointError) -> [Part] {
    let metadata = part.header.metadata
    guard let count = metadata[Split.count]?.integer, count > 1 else { return [part] }
    func malformed(_ part: Part, _ reason: String) -> CheckpointError { .malformedIndex(path: part.url.path, reason: reason) }
    guard let name = PartName(part.url.lastPathComponent), name.count == count else {
      let example = PartName(stem: "NAME", number: 1, count: count).text
      throw malformed(part, "one of \(count) parts of a file, which must be named \(example) and so on for the others to be found")
    }
    let directory = part.url.deletingLastPathComponent()
    var parts: [Part] = []
    for number in 1...count {
      let other = PartName(stem: name.stem, number: number, count: count)
      let found = number == name.number ? part : try Part(directory.appending(path: other.text))
      let keys = found.header.metadata
      guard keys[Split.count]?.integer == count, keys[Split.number]?.integer == number - 1 else {
        throw malformed(
          found,
          "its metadata does not make it part \(number) of \(count): \(Split.number) is "
            + "\(keys[Split.number]?.integer.map { "\($0)" } ?? "missing"), \(Split.count) is "
            + "\(keys[Split.count]?.integer.map { "\($0)" } ?? "missing")")
      }
      parts.append(found)
    }
    return parts
  }

  /// The name of a part: `STEM-00002-of-00003.gguf`.
  struct PartName: Hashable {
    let stem: String
    /// From 1.
    let number: Int
    let count: Int

    init(stem: String, number: Int, count: Int) {
      self.stem = stem
      self.number = number
      self.count = count
    }

    /// `nil` for the name of a file that is whole.
    init?(_ name: String) {
      guard let match = name.wholeMatch(of: /(.+)-([0-9]{5})-of-([0-9]{5})\.gguf/), let number = Int(match.2), let count = Int(match.3),
        number >= 1, number <= count
      else { return nil }
      self.init(stem: String(match.1), number: number, count: count)
    }

    var text: String {
      func digits(_ value: Int) -> String { String(repeating: "0", count: max(0, 5 - "\(value)".count)) + "\(value)" }
      return "\(stem)-\(digits(number))-of-\(digits(count)).gguf"
    }

    /// Of several parts of a file, the first that is there.
    static func firstOfEach(_ files: [URL]) -> [URL] {
      var seen: Set<PartName> = []
      return files.sorted { $0.lastPathComponent < $1.lastPathComponent }.filter { file in
        guard let name = PartName(file.lastPathComponent) else { return true }
        return seen.insert(PartName(stem: name.stem, number: 1, count: name.count)).inserted
      }
    }
  }
}
