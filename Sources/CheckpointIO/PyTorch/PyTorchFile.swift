public import Foundation
public import Tensors

/// A checkpoint saved by torch 1.6 or later (`.bin`, `.pt`, `.pth`): a ZIP file of raw storages and a pickle that says what they are.
///
/// The pickle is interpreted by a closed machine that executes nothing; see `Unpickler`. Tensors are those of the top-level dictionary, or of
/// `state_dict`, `model_state_dict`, `model` or `module` in it; what `torch.compile` and parallel wrappers put before all names is dropped.
public struct PyTorchFile: TensorSource {
  public let path: String
  public let names: [String]
  private let tensors: [[UInt8]: PyTorchTensor]
  /// Tensors of types that are not read, by name: what torch calls the type.
  private let unreadable: [String: String]
  private let archive: ZipArchive
  private let root: String

  private static let nested = ["state_dict", "model_state_dict", "model", "module"]
  private static let wrappers = ["module.", "_orig_mod."]

  /// - Throws: `CheckpointError` for files of other kinds and for everything in them that is not known to be harmless.
  public init(_ url: URL) throws(CheckpointError) {
    let data = try MappedFile.open(url)
    if let reason = Self.otherKind(data) { throw .unreadable(path: url.path, reason: reason) }
    let archive = try ZipArchive(data, path: url.path)
    let pickles = archive.entries.filter { $0.name.hasSuffix("/data.pkl") && $0.name.split(separator: "/").count == 2 }
    guard pickles.count == 1 else {
      throw .unreadable(path: url.path, reason: "a ZIP file, but not one of torch: it holds \(pickles.count) files data.pkl")
    }
    let root = String(pickles[0].name.dropLast("data.pkl".count))
    guard !archive.entries.contains(where: { $0.name == root + "constants.pkl" || $0.name.hasPrefix(root + "code/") }) else {
      throw .unreadable(path: url.path, reason: "a TorchScript program, not weights; save its state_dict")
    }
    if let order = archive[root + "byteorder"], try archive.bytes(of: order) != Data("little".utf8) {
      throw .unreadable(path: url.path, reason: "its numbers are big-endian")
    }
    self.archive = archive
    self.root = root
    path = url.path
    let found = try archive.bytes(of: pickles[0]).parse { bytes throws(CheckpointError) in
      try Unpickler.unpickle(bytes, path: url.path) { object throws(CheckpointError) in try Self.tensors(in: object, path: url.path) }
    }
    var tensors: [[UInt8]: PyTorchTensor] = [:]
    var unreadable: [String: String] = [:]
    for (name, tensor) in found {
      if let type = tensor.unreadable {
        unreadable[name] = type
        continue
      }
      try Self.check(tensor, name, archive, root)
      guard tensors.updateValue(tensor, forKey: Array(name.utf8)) == nil else {
        throw .malformedTensor(path: url.path, tensor: name, offset: 0, reason: "the name occurs twice")
      }
    }
    names = found.map(\.name).filter { unreadable[$0] == nil }
    self.tensors = tensors
    self.unreadable = unreadable
  }

  /// Why a file that is no ZIP file is not read.
  private static func otherKind(_ data: Data) -> String? {
    let legacy: [UInt8] = [0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]
    if data.starts(with: legacy) {
      return "written by torch before 1.6, as a stream of pickles; load it with torch and save it again, best as safetensors"
    }
    if data.count > 262, data.slice(at: 257, count: 5) == Data("ustar".utf8) { return "a tar archive of a very old torch" }
    return data.starts(with: ZipArchive.signature) ? nil : "neither a checkpoint of torch nor any other container that is known"
  }

  private static func tensors(in object: PickleValue, path: String) throws(CheckpointError) -> [(name: String, tensor: PyTorchTensor)] {
    func tensors(_ value: PickleValue) -> [(name: String, tensor: PyTorchTensor)] {
      guard case .dictionary(let dictionary) = value else { return [] }
      return dictionary.pairs.compactMap { pair in
        guard let name = pair.key.string, case .tensor(let tensor) = pair.value else { return nil }
        return (name, tensor)
      }
    }
    var found = tensors(object)
    if found.isEmpty, case .dictionary(let dictionary) = object {
      for key in nested where found.isEmpty {
        found = dictionary.pairs.first { $0.key.string == key }.map { tensors($0.value) } ?? []
      }
    }
    guard !found.isEmpty else { throw .unreadable(path: path, reason: "no dictionary of tensors, only \(object.kind)") }
    var prefix = ""
    while let wrapper = wrappers.first(where: { wrapper in found.allSatisfy { $0.name.hasPrefix(prefix + wrapper) } }) { prefix += wrapper }
    return found.map { (String($0.name.dropFirst(prefix.count)), $0.tensor) }
  }

  private static func check(_ tensor: PyTorchTensor, _ name: String, _ archive: ZipArchive, _ root: String) throws(CheckpointError) {
    func malformed(_ reason: String) -> CheckpointError {
      .malformedTensor(path: archive.path, tensor: name, offset: 0, reason: reason)
    }
    guard let entry = archive[root + "data/" + tensor.storage.key] else { throw malformed("its storage \(tensor.storage.key) is missing") }
    let size = tensor.elementSize
    guard let bytes = [tensor.storage.count].byteCount(bits: tensor.storage.dtype?.bitCount ?? 8), bytes == entry.size else {
      throw malformed("its storage has \(entry.size) bytes where \(tensor.storage.count) elements are declared")
    }
    let view = tensor.view
    guard let total = view.shape.byteCount(bits: 8 * size) else { throw malformed("the size of \(view.shape) overflows") }
    if !view.shape.contains(0) {
      guard let last = view.lastIndex, last < bytes / size else {
        throw malformed("shape \(view.shape) with strides \(view.strides) from \(view.offset) reaches beyond its storage")
      }
    }
    // What repeats elements may stand for more bytes than there are, within reason.
    guard total <= max(archive.byteCount, 1 << 20) else { throw malformed("\(total) bytes, more than the whole file has") }
  }

  public var files: [URL] { [URL(filePath: path)] }

  public func info(_ name: String) -> TensorInfo? {
    tensors[Array(name.utf8)].map { TensorInfo(dtype: $0.dtype, shape: $0.shape) }
  }

  public var remarks: [String] {
    unreadable.sorted { $0.key < $1.key }.map { "tensor \"\($0.key)\" is left out: it is of \($0.value), which is not read" }
  }

  /// A slice of the mapping for what lies stored and contiguous, a copy of what does not.
  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let tensor = tensors[Array(name.utf8)], let entry = archive[root + "data/" + tensor.storage.key] else {
      if let type = unreadable[name] { throw .unusableType(tensor: name, dtype: type, use: "a tensor") }
      throw .missingTensor(name: name)
    }
    let storage = try archive.bytes(of: entry)
    let bytes = tensor.view.gathered(from: storage, elementSize: tensor.elementSize)
    if tensor.isNegated {
      return Tensor(dtype: tensor.dtype, shape: tensor.shape, bytes: bytes.withSignsFlipped(every: tensor.elementSize))
    }
    return Tensor(
      dtype: tensor.dtype, shape: tensor.shape, bytes: bytes, isMapped: entry.isStored && tensor.view.isContiguous)
  }
}

extension Data {
  /// Little-endian floats of so many bytes, each negated.
  fileprivate func withSignsFlipped(every size: Int) -> Data {
    var result = Data(self)
    result.withUnsafeMutableBytes { bytes in
      for last in stride(from: size - 1, to: bytes.count, by: size) { bytes[last] ^= 0x80 }
    }
    return result
  }
}
