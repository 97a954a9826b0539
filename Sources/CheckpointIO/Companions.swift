internal import Foundation
internal import StrictJSON

/// The files of a model that travel with its weights unchanged: tokenizer, templates, generation settings, licences, model cards.
///
/// From the model's directory travel all files that are not weights, an index of weights, a description of weights, a recipe or a report; links
/// are followed. Folders travel with all that is in them, unless they hold weights, which makes them another form of the model or a trainer's
/// state. What begins with a dot stays behind, and `__pycache__`. Beside a lone file of weights without `config.json` anything may lie: of that
/// only what has a tokenizer's or a template's name travels.
public struct Companions: Sendable {
  public internal(set) var files: [CheckpointFile] = []
  /// What stays behind though it might have been meant to travel, and why.
  public internal(set) var remarks: [String] = []

  public init() {}

  /// With files in the place of those of the same names.
  public func adding(_ others: [CheckpointFile]) -> Companions {
    let names = Set(others.map(\.name))
    var result = self
    result.files = others + files.filter { !names.contains($0.name) }
    return result
  }

  /// Copied into the directory of an output.
  public func gathered(in stage: StagedDirectory) throws(CheckpointError) -> Companions {
    var result = self
    result.files = try stage.gather(files)
    return result
  }

  /// Without the files of some names.
  public func without(_ names: Set<String>) -> Companions {
    var result = self
    result.files.removeAll { names.contains($0.name) }
    return result
  }
}

extension Checkpoint {
  /// - Parameter modules: folders that belong to the model itself; they travel with the weights in them.
  public func companions(modules: Set<String> = []) -> Companions {
    var walk = CompanionWalk(directory: directory)
    walk.take(modules: modules, only: standsAlone ? CompanionWalk.ofLoneFiles : nil)
    return walk.found
  }
}

private struct CompanionWalk {
  let directory: URL
  var found = Companions()

  /// What lies beside a GGUF file, of which many may lie in one directory.
  static let ofLoneFiles: Set = [
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt", "special_tokens_map.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
  ]

  private static let weights: Set = [
    "safetensors", "bin", "pt", "pth", "gguf", "h5", "onnx", "msgpack", "partial", "npz", "keras", "hdf5", "ckpt", "onnx_data", "tflite",
  ]
  private static let described: Set = [
    "config.json", "params.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json", "quanto_qmap.json", "recipe.yaml",
    "report.json",
  ]

  /// Beyond these a file is no part of a tokenizer, and a folder no part of a model: somebody's data.
  private static let mostBytes = 1 << 30
  private static let mostFiles = 1000

  private enum Kind { case file(size: Int), folder, broken, special(String) }

  private static func kind(_ url: URL) -> Kind {
    var entry = stat()
    guard stat(url.path, &entry) == 0 else { return .broken }
    switch entry.st_mode & S_IFMT {
    case S_IFREG: return .file(size: Int(entry.st_size))
    case S_IFDIR: return .folder
    case S_IFIFO: return .special("a pipe")
    case S_IFSOCK: return .special("a socket")
    default: return .special("a device")
    }
  }

  private static func names(in directory: URL) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).filter { !$0.hasPrefix(".") && $0 != "__pycache__" }
      .sorted()
  }

  private static func isWeights(_ name: String) -> Bool {
    weights.contains(URL(filePath: name).pathExtension) || name.hasSuffix(".index.json") || name == "model.weights.json"
  }

  mutating func take(modules: Set<String>, only names: Set<String>?) {
    var own = Self.described
    // The parts of a KerasHub preset name a class each; its tokenizer.json is no one else's.
    for name in ["metadata.json", "preprocessor.json", "task.json", "tokenizer.json"] {
      guard let text = try? Data(contentsOf: directory.appending(path: name)), let json = try? JSON(parsing: text) else { continue }
      if json["class_name"] != nil || json["keras_hub_version"] != nil { own.insert(name) }
    }
    for name in Self.names(in: directory) where names?.contains(name) ?? true {
      let place = directory.appending(path: name)
      switch Self.kind(place) {
      case .file(let size):
        guard !own.contains(name), !Self.isWeights(name) else { continue }
        if size > Self.mostBytes { stays(name, "it has \(size) bytes") } else { found.files.append(CheckpointFile(name, .copy(of: place))) }
      case .folder:
        guard names == nil else { continue }
        take(folder: name, at: place, isModule: modules.contains(name))
      case .broken: stays(name, "it is a link that leads nowhere")
      case .special(let what): stays(name, "it is \(what)")
      }
    }
  }

  private mutating func stays(_ name: String, _ reason: String) { found.remarks.append("\(name) of the model stays behind: \(reason)") }

  /// A folder and what lies below, or none of it.
  private mutating func take(folder: String, at place: URL, isModule: Bool) {
    var (files, remarks): ([CheckpointFile], [(name: String, reason: String)]) = ([], [])
    var bytes = 0
    var open: [(name: String, place: URL, path: Set<String>)] = [(folder, place, [])]
    while let next = open.popLast() {
      // A link may lead back to where it lies.
      guard let real = OutputPlace.real(next.place.path), !next.path.contains(real) else { continue }
      for entry in Self.names(in: next.place) {
        let (name, place) = ("\(next.name)/\(entry)", next.place.appending(path: entry))
        switch Self.kind(place) {
        case .file(let size):
          if !isModule, Self.isWeights(entry) { return stays(folder + "/", "it holds weights of its own, such as \(name)") }
          bytes += size
          files.append(CheckpointFile(name, .copy(of: place)))
          guard isModule || bytes <= Self.mostBytes && files.count <= Self.mostFiles else {
            return stays(folder + "/", "it holds more than a model's folder does: over \(Self.mostFiles) files, or over a gigabyte")
          }
        case .folder: open.append((name, place, next.path.union([real])))
        case .broken: remarks.append((name, "it is a link that leads nowhere"))
        case .special(let what): remarks.append((name, "it is \(what)"))
        }
      }
    }
    found.files += files.sorted { $0.name < $1.name }
    for (name, reason) in remarks { stays(name, reason) }
  }
}
