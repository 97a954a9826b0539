public import Foundation
public import StrictJSON

/// The tensors of a file or a directory under the names they have there, whatever model they belong to, if any.
public struct TensorCollection: Sendable {
  public let container: Container
  public let tensors: any TensorSource
  /// What the file says besides: the metadata of safetensors and GGUF, the header of llama2.c.
  public let metadata: [JSON.Member]
  /// Where the files lie.
  public let directory: URL
  /// Whether a whole directory was meant, rather than one file of it.
  public let isDirectory: Bool

  /// - Throws: `CheckpointError` for what is missing, damaged, or of no kind that is read.
  public init(_ place: URL) throws(CheckpointError) {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: place.path, isDirectory: &isDirectory) else { throw .missingFile(path: place.path) }
    self.isDirectory = isDirectory.boolValue
    directory = isDirectory.boolValue ? place : place.deletingLastPathComponent()
    switch isDirectory.boolValue ? try WeightFiles(in: place) : .file(place, try Container(of: place)) {
    case .index(let url, let container):
      self.container = container
      tensors = try ShardedTensors(index: url) { url throws(CheckpointError) in try container.raw(url).tensors }
      metadata = (try? JSON(parsing: Data(contentsOf: url)))?["metadata"]?.members ?? []
    case .file(let url, let container):
      self.container = container
      (tensors, metadata) = try container.raw(url)
    }
  }
}

extension Container {
  /// The file as it is: no names translated, no rows put into another order.
  fileprivate func raw(_ url: URL) throws(CheckpointError) -> (tensors: any TensorSource, metadata: [JSON.Member]) {
    switch self {
    case .safetensors:
      let file = try SafetensorsFile(url)
      return (file, file.header.metadata)
    case .gguf:
      let file = try GGUFFile(url)
      return (file, file.metadata.entries.map { JSON.Member($0.key, $0.value.json) })
    case .pytorch: return (try PyTorchFile(url), [])
    case .npz: return (try NumpyArchive(url), [])
    case .keras: return (try KerasWeights(url), [])
    case .hdf5: return url.pathExtension == "json" ? (try KerasWeights(url), []) : (try HDF5File(url), [])
    case .llama2c:
      let file = try Llama2CFile(url)
      return (file, try file.config().json.members ?? [])
    }
  }
}

extension GGUFValue {
  /// Long arrays, such as vocabularies, by their length and how they begin.
  fileprivate var json: JSON {
    switch self {
    case .bool(let value): .bool(value)
    case .string(let text): .string(text)
    case .float32(let value): .double(Double("\(value)") ?? Double(value))
    case .float64(let value): .double(value)
    case .uint64(let value): .number("\(value)")
    case .array(_, let elements) where elements.count > 16:
      .object([.init("count", .integer(elements.count)), .init("first", .array(elements.prefix(4).map(\.json)))])
    case .array(_, let elements): .array(elements.map(\.json))
    default: integer.map { .integer($0) } ?? .null
    }
  }
}
