public import Foundation
internal import StrictJSON
public import Tensors

/// A checkpoint of several files behind an index such as `model.safetensors.index.json`.
public struct ShardedTensors: TensorSource {
  public let names: [String]
  /// Tensors that a shard holds and the index does not name; they are not part of the model.
  public let unlisted: [String]
  public let files: [URL]
  private let shards: [any TensorSource]
  /// By the bytes of the name, as in `SafetensorsFile`.
  private let shardOfTensor: [[UInt8]: Int]

  public typealias Opening = @Sendable (URL) throws(CheckpointError) -> any TensorSource

  /// - Parameters:
  ///   - index: the index file; its shards lie beside it.
  ///   - open: reads a shard.
  /// - Throws: `CheckpointError` for a malformed index, a shard that is missing or malformed, a tensor that is in no shard or in two.
  public init(index: URL, opening open: Opening) throws(CheckpointError) {
    let path = index.path
    let text = try MappedFile.open(index)
    let root: JSON
    do { root = try JSON(parsing: text) } catch { throw .malformedIndex(path: path, reason: error.description) }
    guard let map = root["weight_map"]?.members else { throw .malformedIndex(path: path, reason: "weight_map is missing") }
    var distinct: Set<String> = []
    for member in map {
      guard let file = member.value.string else {
        throw .malformedIndex(path: path, reason: "weight_map[\"\(member.key)\"] is not a file name")
      }
      guard !file.contains("/"), !file.contains("\\"), file != "..", file != ".", !file.isEmpty else {
        throw .malformedIndex(path: path, reason: "weight_map[\"\(member.key)\"] = \"\(file)\" is not a plain file name")
      }
      distinct.insert(file)
    }
    let files = distinct.sorted()
    var shards: [any TensorSource] = []
    var owner: [[UInt8]: Int] = [:]
    for (number, file) in files.enumerated() {
      let shard = try open(index.deletingLastPathComponent().appending(path: file))
      for name in shard.names {
        if let other = owner[Array(name.utf8)] {
          throw .malformedIndex(path: path, reason: "tensor \"\(name)\" is in both \(files[other]) and \(file)")
        }
        owner[Array(name.utf8)] = number
      }
      shards.append(shard)
    }
    var listed: Set<[UInt8]> = []
    for member in map {
      guard let number = owner[Array(member.key.utf8)], files[number] == member.value.string else {
        throw .malformedIndex(path: path, reason: "tensor \"\(member.key)\" is not in \(member.value.string ?? "its shard")")
      }
      listed.insert(Array(member.key.utf8))
    }
    self.shards = shards
    self.files = files.map { index.deletingLastPathComponent().appending(path: $0) }
    let stored = shards.flatMap(\.names)
    names = stored.filter { listed.contains(Array($0.utf8)) }
    unlisted = stored.filter { !listed.contains(Array($0.utf8)) }
    shardOfTensor = owner
  }

  /// A checkpoint of several safetensors files.
  public init(safetensors index: URL) throws(CheckpointError) {
    try self.init(index: index) { url throws(CheckpointError) in try SafetensorsFile(url) }
  }

  public var remarks: [String] { shards.flatMap(\.remarks) }

  public func info(_ name: String) -> TensorInfo? { shardOfTensor[Array(name.utf8)].flatMap { shards[$0].info(name) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let shard = shardOfTensor[Array(name.utf8)] else { throw .missingTensor(name: name) }
    return try shards[shard].tensor(name)
  }
}
