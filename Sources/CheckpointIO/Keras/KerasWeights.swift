public import Foundation
internal import StrictJSON
public import Tensors

/// The weights of a model that Keras saved: `.keras`, `.weights.h5` and its shards, and the `.h5` files of Keras 2.
///
/// Names are the paths inside the file: `layers/dense/vars/0` as Keras 3 writes them, `dense/dense/kernel:0` as Keras 2 does. The state of
/// the optimizer is left out.
public struct KerasWeights: TensorSource {
  public let names: [String]
  /// Whether Keras 2 wrote the file: its root says which layers there are.
  public let isLegacy: Bool
  private let parts: [HDF5File]
  public let files: [URL]
  private let places: [String: (file: Int, path: String)]

  static let optimizers: Set = ["optimizer", "optimizer_weights", "_optimizer"]
  private static let wholeModel = "model_weights"

  /// Opens a `.keras` archive, an HDF5 file, or the index `model.weights.json` of several.
  ///
  /// - Throws: `CheckpointError` for a file that is damaged, for weights that a Keras 2 file lists and does not hold.
  public init(_ url: URL) throws(CheckpointError) {
    if url.pathExtension == "json" {
      let shards = try Self.shards(index: url)
      try self.init(shards, files: shards.flatMap(\.files), path: url.path)
    } else if try MappedFile.open(url).starts(with: ZipArchive.signature) {
      try self.init([try Self.unpacked(url)], files: [url], path: url.path)
    } else {
      try self.init([try HDF5File(url, skipping: Self.optimizers)], files: [url], path: url.path)
    }
  }

  private init(_ parts: [HDF5File], files: [URL], path: String) throws(CheckpointError) {
    (self.parts, self.files) = (parts, files)
    var (names, places): ([String], [String: (file: Int, path: String)]) = ([], [:])
    for (number, file) in parts.enumerated() {
      for stored in file.names {
        let name = stored.hasPrefix(Self.wholeModel + "/") ? String(stored.dropFirst(Self.wholeModel.count + 1)) : stored
        guard places.updateValue((number, stored), forKey: name) == nil else {
          throw .malformedTensor(path: path, tensor: name, offset: 0, reason: "the weight is stored twice")
        }
        names.append(name)
      }
    }
    self.places = places
    guard let file = parts.first, let listed = try Self.listed(in: file) else {
      (self.names, isLegacy) = (names, false)
      return
    }
    isLegacy = true
    if let absent = listed.first(where: { places[$0] == nil }) { throw .missingTensor(name: absent) }
    let order = Set(listed)
    self.names = listed + names.filter { !order.contains($0) }
  }

  /// What a Keras 2 file says it holds, in the order of the layers; `nil` for a file of Keras 3.
  private static func listed(in file: HDF5File) throws(CheckpointError) -> [String]? {
    // Long lists are cut into several attributes.
    func lists(_ name: String, of group: String) -> [String]? {
      if let whole = file.attribute(name, of: group) { return whole }
      var (all, number): ([String], Int) = ([], 0)
      while let part = file.attribute("\(name)\(number)", of: group) {
        all += part
        number += 1
      }
      return number == 0 ? nil : all
    }
    for root in ["/", "/" + wholeModel] {
      guard let layers = lists("layer_names", of: root) else { continue }
      let prefix = root == "/" ? "/" : root + "/"
      return (layers + ["top_level_model_weights"]).flatMap { layer in
        (lists("weight_names", of: prefix + layer) ?? []).map { "\(layer)/\($0)" }
      }
    }
    return nil
  }

  /// The weights in a `.keras` archive, as a file of their own: the library reads no slices of others.
  private static func unpacked(_ url: URL) throws(CheckpointError) -> HDF5File {
    let archive = try ZipArchive(url)
    guard let entry = archive["model.weights.h5"] else {
      throw .unreadable(path: url.path, reason: "an archive without model.weights.h5: not one of Keras")
    }
    // As Keras itself does.
    guard entry.size / 100 <= entry.storedSize else {
      throw .malformedTensor(
        path: url.path, tensor: entry.name, offset: entry.start, reason: "\(entry.size) bytes from \(entry.storedSize)")
    }
    let bytes = try archive.bytes(of: entry)
    let copy = FileManager.default.temporaryDirectory.appending(path: "compress-\(UUID().uuidString).h5")
    do { try bytes.write(to: copy) } catch {
      throw .unreadable(
        path: url.path, reason: "its weights cannot be unpacked to \(copy.path): \(SystemError.reason(error)); TMPDIR names another place")
    }
    // Open files outlive their names.
    defer { try? FileManager.default.removeItem(at: copy) }
    return try HDF5File(copy, skipping: optimizers)
  }

  private static func shards(index: URL) throws(CheckpointError) -> [HDF5File] {
    let text = try MappedFile.open(index)
    let root: JSON
    do { root = try JSON(parsing: text) } catch { throw .malformedIndex(path: index.path, reason: error.description) }
    guard let map = root["weight_map"]?.members, !map.isEmpty else {
      throw .malformedIndex(path: index.path, reason: "weight_map is missing")
    }
    var names: Set<String> = []
    for member in map {
      // A list where the variables of one layer lie in several files.
      let files = member.value.string.map { [$0] } ?? member.value.elements?.compactMap(\.string) ?? []
      guard !files.isEmpty, files.allSatisfy({ !$0.contains("/") && !$0.contains("\\") && $0 != ".." && $0 != "." && !$0.isEmpty }) else {
        throw .malformedIndex(path: index.path, reason: "weight_map[\"\(member.key)\"] names no plain files")
      }
      names.formUnion(files)
    }
    var files: [HDF5File] = []
    for name in names.sorted() {
      files.append(try HDF5File(index.deletingLastPathComponent().appending(path: name), skipping: optimizers))
    }
    return files
  }

  public var remarks: [String] { parts.flatMap(\.remarks) }

  public func info(_ name: String) -> TensorInfo? { places[name].flatMap { parts[$0.file].info($0.path) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let place = places[name] else {
      // A file knows why it left something out.
      for file in parts where file.info(name) == nil {
        do throws(CheckpointError) { return try file.tensor(name) } catch CheckpointError.missingTensor { continue }
      }
      throw .missingTensor(name: name)
    }
    return try parts[place.file].tensor(place.path)
  }
}
