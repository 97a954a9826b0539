public import Foundation
public import Tensors

/// What a GGUF file will hold: its metadata, and its tensors in the order of the file.
public struct GGUFLayout: Sendable {
  /// A tensor of the file, and where its bytes come from.
  public struct Placement: Sendable {
    public enum Source: Sendable {
      /// What was appended under this name; row i of the file's tensor is its row `rowOrder[i]`.
      case appended(String, rowOrder: [Int]? = nil)
      /// What was appended under these names, one after the other.
      case joined([String])
      case bytes(Data)
    }
    public var name: String
    public var type: BlockType
    public var shape: [Int]
    public var source: Source

    public init(name: String, type: BlockType, shape: [Int], source: Source) {
      self.name = name
      self.type = type
      self.shape = shape
      self.source = source
    }
  }

  public var metadata: GGUFMetadata
  public var tensors: [Placement]

  public init(metadata: GGUFMetadata, tensors: [Placement]) {
    self.metadata = metadata
    self.tensors = tensors
  }
}

/// Writes one `model.gguf` and the files beside it.
///
/// Names, order and metadata of the file are decided when all tensors are known, by a function of them and of the files beside them;
/// until then tensors are spooled into a file without a name, so memory holds none.
public actor GGUFWriter: CheckpointWriter {
  public static let fileName = "model.gguf"
  public typealias LayOut =
    @Sendable (_ tensors: [(name: String, info: TensorInfo)], _ files: [CheckpointFile]) throws(CheckpointError) -> GGUFLayout

  public nonisolated let stage: StagedDirectory
  private let layOut: LayOut
  private let spool: FileHandle
  private var spooled: [(name: String, info: TensorInfo, offset: Int)] = []
  private var end = 0

  /// - Parameters:
  ///   - stage: the directory to fill.
  ///   - layOut: from what was appended to what the file holds.
  public init(into stage: StagedDirectory, layOut: @escaping LayOut) throws(CheckpointError) {
    self.layOut = layOut
    self.stage = stage
    spool = try stage.scratchFile()
  }

  /// - Parameter destination: the final directory; refused if it exists, unless `overwrite`, which replaces an output of this program.
  public init(to destination: URL, overwrite: Bool = false, layOut: @escaping LayOut) throws(CheckpointError) {
    try self.init(into: try StagedDirectory(for: destination, overwrite: overwrite), layOut: layOut)
  }

  public func append(_ tensors: [NamedTensor]) throws(CheckpointError) {
    for named in tensors {
      do { try named.forEachPart { try spool.write(contentsOf: $0.bytes) } } catch { throw stage.failure(stage.destination.path, error) }
      spooled.append((named.name, named.info, end))
      end += named.info.byteCount
    }
  }

  public func complete(files: [CheckpointFile]) throws(CheckpointError) {
    let layout = try layOut(spooled.map { ($0.name, $0.info) }, files)
    let entries = layout.tensors.map { GGUFHeader.Entry(name: $0.name, type: $0.type, shape: $0.shape) }
    let header = GGUFHeader(layingOut: entries, metadata: layout.metadata)
    let offsets = Dictionary(spooled.map { ($0.name, $0.offset) }) { _, last in last }
    do {
      let file = try stage.create(Self.fileName)
      try file.write(contentsOf: header.serialized())
      // Padding is what no tensor is written over.
      try file.truncate(atOffset: UInt64(header.dataStart + header.dataLength))
      // Tensors do not overlap, so they are copied several at a time.
      try Parallel.forEach(
        entries.count,
        throwing: { index in
          try Self.copy(layout.tensors[index], header.entries[index], offsets, spool.fileDescriptor, file.fileDescriptor, header.dataStart)
        })
      try file.synchronize()
      try file.close()
      try spool.close()
      for file in files { try stage.write(file) }
    } catch { throw stage.failure(stage.destination.path, error) }
  }

  public func abandon() {
    try? spool.close()
    stage.abandon()
  }

  private static func copy(
    _ tensor: GGUFLayout.Placement, _ entry: GGUFHeader.Entry, _ offsets: [String: Int], _ source: Int32, _ target: Int32, _ dataStart: Int
  ) throws {
    let place = dataStart + entry.offset
    switch tensor.source {
    case .bytes(let data):
      precondition(data.count == entry.byteCount, "bytes do not fill \(tensor.name)")
      let written = data.withUnsafeBytes { pwrite(target, $0.baseAddress, data.count, off_t(place)) }
      guard written == data.count else { throw CheckpointError.cannotWrite(path: tensor.name, reason: String(cString: strerror(errno))) }
    case .joined(let names):
      let size = entry.byteCount / max(1, names.count)
      for (index, name) in names.enumerated() {
        guard let offset = offsets[name] else { throw CheckpointError.missingTensor(name: name) }
        try StagedDirectory.copy(size, from: source, at: offset, to: target, at: place + index * size)
      }
    case .appended(let name, let order):
      guard let offset = offsets[name] else { throw CheckpointError.missingTensor(name: name) }
      guard let order, !order.isEmpty else {
        return try StagedDirectory.copy(entry.byteCount, from: source, at: offset, to: target, at: place)
      }
      let size = entry.byteCount / order.count
      for (row, from) in order.enumerated() {
        try StagedDirectory.copy(size, from: source, at: offset + from * size, to: target, at: place + row * size)
      }
    }
  }
}
