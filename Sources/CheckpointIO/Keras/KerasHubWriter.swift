public import Foundation
internal import StrictJSON
internal import Tensors

/// Writes a KerasHub preset, `model.weights.h5` beside its `config.json`.
///
/// What a tensor becomes follows from the configuration, which comes last; until then tensors are spooled into a file without a name, so
/// memory holds one at a time.
public actor KerasHubWriter: CheckpointWriter {
  public static let fileName = "model.weights.h5"
  public nonisolated let stage: StagedDirectory
  private let spool: FileHandle
  private var spooled: [String: (info: TensorInfo, offset: Int)] = [:]
  private var end = 0

  /// - Parameter destination: the final directory; refused if it exists, unless `overwrite`, which replaces an output of this program.
  public init(to destination: URL, overwrite: Bool = false) throws(CheckpointError) {
    try self.init(into: try StagedDirectory(for: destination, overwrite: overwrite))
  }

  /// - Parameter stage: the directory to fill.
  public init(into stage: StagedDirectory) throws(CheckpointError) {
    self.stage = stage
    spool = try stage.scratchFile()
  }

  public func append(_ tensors: [NamedTensor]) throws(CheckpointError) {
    for named in tensors {
      guard named.blocks == nil else { throw .unusableType(tensor: named.name, dtype: named.info.typeName, use: "a variable of Keras") }
      do { try named.forEachPart { try spool.write(contentsOf: $0.bytes) } } catch { throw stage.failure(stage.destination.path, error) }
      guard spooled.updateValue((named.info, end), forKey: named.name) == nil else {
        throw .cannotWrite(path: named.name, reason: "the name occurs twice")
      }
      end += named.info.byteCount
    }
  }

  /// - Parameter files: KerasHub's `config.json` among them.
  public func complete(files: [CheckpointFile]) throws(CheckpointError) {
    let preset = try Self.preset(files)
    do {
      try write(preset, from: try Self.mapped(spool, count: end))
      try spool.close()
      let file = try FileHandle(forUpdating: stage.url(Self.fileName))
      try file.synchronize()
      try file.close()
      for file in files { try stage.write(file) }
    } catch { throw stage.failure(stage.destination.path, error) }
  }

  private static func mapped(_ file: FileHandle, count: Int) throws(CheckpointError) -> Data {
    guard count > 0 else { return Data() }
    guard let bytes = mmap(nil, count, PROT_READ, MAP_SHARED, file.fileDescriptor, 0), bytes != MAP_FAILED else {
      throw .cannotWrite(path: fileName, reason: SystemError.text)
    }
    return Data(bytesNoCopy: bytes, count: count, deallocator: .unmap)
  }

  private func write(_ preset: KerasHubPreset, from bytes: Data) throws(CheckpointError) {
    let output = try HDF5Output(stage.url(Self.fileName))
    var left = Set(spooled.keys)
    for place in preset.places(isTied: spooled["lm_head.weight"] == nil) {
      guard let (info, offset) = spooled[place.name] else { throw .missingTensor(name: place.name) }
      let tensor = Tensor(dtype: info.dtype, shape: info.shape, bytes: bytes.slice(at: offset, count: info.byteCount), isMapped: true)
      guard let variable = place.variable(from: tensor) else {
        throw .wrongShape(tensor: place.name, expected: Array(repeating: 0, count: place.axes.count), found: info.shape)
      }
      try output.append(variable, place.path)
      tensor.releasePages()
      left.remove(place.name)
    }
    if let other = left.sorted().first {
      throw .unusableType(tensor: other, dtype: spooled[other]?.info.typeName ?? "", use: "a part of a \(preset.family.rawValue)")
    }
    try output.finish()
  }

  private static func preset(_ files: [CheckpointFile]) throws(CheckpointError) -> KerasHubPreset {
    guard let file = files.first(where: { $0.name == "config.json" }), case .text(let text) = file.content,
      let json = try? JSON(parsing: text.utf8), let name = json["class_name"]?.string, let arguments = json["config"]
    else { throw .malformedConfiguration(path: "config.json", reason: "KerasHub's class_name and config are needed") }
    return try KerasHubPreset(class: name, arguments: arguments, path: "config.json")
  }

  public func abandon() {
    try? spool.close()
    stage.abandon()
  }
}
