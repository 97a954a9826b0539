public import Foundation
internal import StrictJSON
internal import Tensors

/// Writes safetensors shards.
///
/// The canonical order of a shard is known only when its last tensor is, so tensors are first appended to a spool file, which has no name, and
/// then copied into place: memory holds no tensor, at the price of writing one shard's bytes twice.
public actor SafetensorsWriter: CheckpointWriter {
  public nonisolated let stage: StagedDirectory
  private let shardLimit: Int
  private let library: Library
  private let spool: FileHandle
  private var open: [(name: String, info: TensorInfo, offset: Int)] = []
  private var openBytes = 0
  private var shards: [[String]] = []
  private var totalBytes = 0

  /// Whose conventions the files follow.
  public enum Library: String, Sendable {
    case pytorch = "pt"
    /// Always has an index, whose text is indented by four.
    case mlx
  }

  /// - Parameters:
  ///   - stage: the directory to fill.
  ///   - shardLimit: bytes of tensors in a shard; a larger tensor gets a shard of its own.
  ///   - library: named in the metadata of every shard.
  public init(into stage: StagedDirectory, shardLimit: Int = 5_000_000_000, library: Library = .pytorch) throws(CheckpointError) {
    self.shardLimit = shardLimit
    self.library = library
    self.stage = stage
    spool = try stage.scratchFile()
  }

  /// - Parameter destination: the final directory; refused if it exists, unless `overwrite`, which replaces an output of this program.
  public init(
    to destination: URL, shardLimit: Int = 5_000_000_000, overwrite: Bool = false, library: Library = .pytorch
  ) throws(CheckpointError) {
    try self.init(into: try StagedDirectory(for: destination, overwrite: overwrite), shardLimit: shardLimit, library: library)
  }

  public func append(_ tensors: [NamedTensor]) throws(CheckpointError) {
    for named in tensors {
      // ggml's blocks are bytes here.
      let info = named.blocks == nil ? named.info : TensorInfo(dtype: named.tensor.dtype, shape: named.tensor.shape)
      if !open.isEmpty, openBytes + info.byteCount > shardLimit { try closeShard() }
      do { try named.forEachPart { try spool.write(contentsOf: $0.bytes) } } catch { throw stage.failure(stage.destination.path, error) }
      open.append((named.name, info, openBytes))
      openBytes += info.byteCount
    }
  }

  private func closeShard() throws(CheckpointError) {
    let header = SafetensorsHeader(layingOut: open.map { ($0.name, $0.info) }, metadata: [.init("format", .string(library.rawValue))])
    guard let text = header.serialized() else {
      throw .cannotWrite(path: stage.destination.path, reason: "the shard's header is too large")
    }
    let file = "shard-\(shards.count)"
    do {
      let offsets = Dictionary(uniqueKeysWithValues: open.map { ($0.name, $0.offset) })
      let shard = try stage.create(file)
      try shard.write(contentsOf: text)
      // One after the other: writes into one file wait for each other, on ext4 at least, and in order the disk keeps up.
      for entry in header.entries {
        try StagedDirectory.copy(
          entry.range.count, from: spool.fileDescriptor, at: offsets[entry.name]!, to: shard.fileDescriptor,
          at: text.count + entry.range.lowerBound)
      }
      try shard.synchronize()
      try shard.close()
      try spool.truncate(atOffset: 0)
    } catch { throw stage.failure(stage.destination.path, error) }
    shards.append(open.map(\.name))
    totalBytes += openBytes
    open = []
    openBytes = 0
  }

  public func complete(files: [CheckpointFile]) throws(CheckpointError) {
    if !open.isEmpty || shards.isEmpty { try closeShard() }
    do {
      try spool.close()
      func name(_ shard: Int) -> String {
        func five(_ number: Int) -> String { String(repeating: "0", count: max(0, 5 - "\(number)".count)) + "\(number)" }
        return shards.count == 1 ? "model.safetensors" : "model-\(five(shard + 1))-of-\(five(shards.count)).safetensors"
      }
      for shard in shards.indices {
        try FileManager.default.moveItem(at: stage.url("shard-\(shard)"), to: stage.url(name(shard)))
      }
      if shards.count > 1 || library == .mlx {
        let map = shards.enumerated().flatMap { shard, names in names.map { JSON.Member($0, .string(name(shard))) } }
        let index = JSON.object([
          .init("metadata", .object([.init("total_size", .integer(totalBytes))])), .init("weight_map", .object(map)),
        ])
        let text = index.sorted().text(indent: library == .mlx ? 4 : 2) + "\n"
        try stage.write(CheckpointFile("model.safetensors.index.json", .text(text)))
      }
      for file in files { try stage.write(file) }
    } catch { throw stage.failure(stage.destination.path, error) }
  }

  public func abandon() {
    try? spool.close()
    stage.abandon()
  }
}
