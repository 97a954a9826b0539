public import Foundation

/// The kinds of file that tensors come in.
public enum Container: String, Sendable, CaseIterable {
  case safetensors, gguf, pytorch, npz, hdf5, keras, llama2c

  /// Tells the kind of a file by how it begins; llama2.c's legacy form, which has no mark, by its length.
  ///
  /// - Throws: `CheckpointError.unreadable` for a file of no kind that is read.
  public init(of file: URL) throws(CheckpointError) {
    let data = try MappedFile.open(file)
    let kind = data.withUnsafeBytes { Self.kind(of: $0, named: file.pathExtension) }
    if kind == nil, data.starts(with: ZipArchive.signature) {
      self = try Self.kind(of: try ZipArchive(data, path: file.path))
    } else if let kind {
      self = kind
    } else {
      let known = "safetensors, GGUF, PyTorch (.bin, .pt), .npz, HDF5 and llama2.c files are read, and directories that hold one"
      throw .unreadable(path: file.path, reason: "no kind of file that holds weights: " + known)
    }
  }

  private static func kind(of bytes: UnsafeRawBufferPointer, named suffix: String) -> Container? {
    if bytes.holds(GGUFHeader.magic, at: 0) || suffix == "gguf" { return .gguf }
    if bytes.holds(ZipArchive.signature, at: 0) { return nil }
    if bytes.holds(HDF5File.magic, at: 0) || ["h5", "hdf5"].contains(suffix) && HDF5File.begins(bytes) { return .hdf5 }
    if bytes.holds(Llama2CFile.magic, at: 0) { return .llama2c }
    if suffix == "safetensors" { return .safetensors }
    if bytes.count > 8, bytes[8] == UInt8(ascii: "{"), let length = bytes.little(UInt64.self, at: 0), length <= bytes.count {
      return .safetensors
    }
    // A bare pickle; its reader says why not.
    if ["pt", "pth"].contains(suffix) || bytes.holds([0x80, 2, 0x8A], at: 0) { return .pytorch }
    return suffix == "bin" ? .llama2c : nil
  }

  private static func kind(of archive: ZipArchive) throws(CheckpointError) -> Container {
    if archive.entries.contains(where: { $0.name.hasSuffix("/data.pkl") }) { return .pytorch }
    if archive.entries.contains(where: { $0.name.hasSuffix(".npy") }) { return .npz }
    if archive["model.weights.h5"] != nil { return .keras }
    throw .unreadable(path: archive.path, reason: "a ZIP file that holds no checkpoint of torch or Keras and no arrays of NumPy")
  }

  /// Whether the configuration follows from the file.
  func isSelfDescribing(beside configuration: URL) throws(CheckpointError) -> Bool {
    switch self {
    case .gguf, .llama2c: true
    case .hdf5: try KerasHubPreset(contentsOf: configuration) != nil
    case .safetensors, .pytorch, .npz, .keras: false
    }
  }

  /// - Returns: the tensors, and the configuration where the file itself has one.
  package func open(_ url: URL) throws(CheckpointError) -> (tensors: any TensorSource, config: ModelConfig?) {
    switch self {
    case .safetensors: return (try SafetensorsFile(url), nil)
    case .pytorch: return (try PyTorchFile(url), nil)
    case .npz: return (try NumpyArchive(url), nil)
    case .hdf5: return try Self.openHDF5(url)
    case .keras: return (try KerasWeights(url), nil)
    case .gguf:
      let tensors = try GGUFCheckpoint(try GGUFFile(url))
      return (tensors, try tensors.config())
    case .llama2c:
      let tensors = try Llama2CFile(url)
      return (tensors, try tensors.config())
    }
  }
}

extension Container {
  /// A file of Keras where its names say so; beside the configuration of a KerasHub preset, the model it describes.
  private static func openHDF5(_ url: URL) throws(CheckpointError) -> (tensors: any TensorSource, config: ModelConfig?) {
    let configuration = url.deletingLastPathComponent().appending(path: "config.json")
    if let preset = try KerasHubPreset(contentsOf: configuration) {
      let tensors = try KerasHubCheckpoint(try KerasWeights(url), preset: preset)
      return (tensors, try tensors.config())
    }
    // Keras puts everything into groups; this package's own files have none.
    let file = url.pathExtension == "json" ? nil : try HDF5File(url, skipping: KerasWeights.optimizers)
    if let file, !file.names.contains(where: { $0.contains("/") }) { return (file, nil) }
    return (try KerasWeights(url), nil)
  }
}

/// Where the weights of a directory lie.
enum WeightFiles {
  case file(URL, Container)
  /// Several files, and which tensor lies in which.
  case index(URL, Container)

  private static let indices: [(String, Container)] = [
    ("model.safetensors.index.json", .safetensors), ("pytorch_model.bin.index.json", .pytorch),
  ]

  /// - Throws: `CheckpointError` where there are none, or several and no reason to prefer one.
  init(in directory: URL) throws(CheckpointError) {
    let files = (try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)) ?? []
    let sorted = files.sorted { $0.lastPathComponent < $1.lastPathComponent }
    func named(_ name: String) -> URL? { sorted.first { $0.lastPathComponent == name } }
    func only(_ what: String, _ found: [URL]) throws(CheckpointError) -> URL? {
      guard found.count > 1 else { return found.first }
      let names = found.map(\.lastPathComponent).joined(separator: ", ")
      throw .unreadable(path: directory.path, reason: "\(found.count) \(what); name one of them: \(names)")
    }
    let safetensors = sorted.filter { $0.lastPathComponent.contains(".safetensors") }
    for (name, container) in Self.indices where container == .safetensors || safetensors.isEmpty {
      guard let index = named(name) else { continue }
      self = .index(index, container)
      return
    }
    if !safetensors.isEmpty {
      // The only one of its kind where an older tool gave it another name.
      let whole = safetensors.filter { $0.pathExtension == "safetensors" }
      self = .file(whole.count == 1 ? whole[0] : directory.appending(path: "model.safetensors"), .safetensors)
    } else if let file = try only("GGUF files", GGUFFile.PartName.firstOfEach(sorted.filter { $0.pathExtension == "gguf" })) {
      self = .file(file, .gguf)
    } else if let file = named("pytorch_model.bin") {
      self = .file(file, .pytorch)
    } else if let file = named("model.weights.json") ?? named("model.weights.h5") {
      self = .file(file, .hdf5)
    } else if let (file, container) = try Self.other(in: sorted, only) {
      self = .file(file, container)
    } else if let damaged = Self.damaged(in: sorted) {
      throw damaged
    } else {
      self = .file(directory.appending(path: "model.safetensors"), .safetensors)
    }
  }

  private static let others = ["npz", "h5", "hdf5", "keras", "pt", "pth", "bin"]
  /// What a trainer leaves beside the weights.
  private static let bystanders = ["training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin"]

  /// What is wrong with a file that its name, or how it begins, says to hold weights; `nil` where there is no such file.
  private static func damaged(in files: [URL]) -> CheckpointError? {
    for file in files where others.contains(file.pathExtension) && !bystanders.contains(file.lastPathComponent) {
      do throws(CheckpointError) {
        let container = try Container(of: file)
        // Any file may be named .bin.
        if container != .llama2c { _ = try container.open(file) }
      } catch { return error }
    }
    return nil
  }

  /// The only file that turns out to hold weights.
  private static func other(
    in files: [URL], _ only: (String, [URL]) throws(CheckpointError) -> URL?
  ) throws(CheckpointError) -> (URL, Container)? {
    var found: [(URL, Container)] = []
    for file in files where others.contains(file.pathExtension) {
      guard !bystanders.contains(file.lastPathComponent), let container = try? Container(of: file) else { continue }
      // Any file may be named .bin; the legacy form of llama2.c has no mark, but one length.
      if container == .llama2c, (try? Llama2CFile(file)) == nil { continue }
      found.append((file, container))
    }
    let parts = found.filter { $0.0.lastPathComponent.wholeMatch(of: /consolidated\.\d+\.pth/) != nil }
    if parts.count > 1, parts.count == found.count {
      throw .unreadable(
        path: found[0].0.deletingLastPathComponent().path,
        reason: "a model in Meta's own layout, cut into \(parts.count) parts for as many devices; "
          + "join them with transformers' convert_llama_weights_to_hf.py and give its output")
    }
    guard let file = try only("files of weights", found.map(\.0)) else { return nil }
    return found.first { $0.0 == file }
  }
}
