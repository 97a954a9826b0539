import CheckpointIO

/// How the names of a checkpoint differ from those of the model it holds, where they do.
struct StoredSpelling {
  /// What the model calls a module of the file.
  var modules: [String: String] = [:]
  var remarks: [String] = []

  /// Looks for modules that the description names, are not there, and are there under another name that savers are known to use.
  init(of description: ModelDescription, in source: any TensorSource, reader: WeightReader?) {
    func holds(_ module: String) -> Bool { source.info(module + ".weight") != nil || reader?.holds(module, source) == true }
    if description.isTied, !holds(description.embedding), holds(description.ownHead) {
      // Of tensors that share their memory safetensors keeps one, by the order of their names.
      modules[description.ownHead] = description.embedding
      remarks.append(
        "the matrix that embedding and head share is stored as \(description.ownHead).weight only: read as \(description.embedding)")
    }
    guard !description.otherSpellings.isEmpty else { return }
    var renamed: Set<String> = []
    for block in description.blocks {
      for name in block.linearShapes.keys {
        let parts = name.rawValue.split(separator: ".").map(String.init)
        guard let last = parts.last, let other = description.otherSpellings[last] else { continue }
        let module = block.prefix + name.rawValue
        let stored = module.dropLast(last.count) + other
        guard !holds(module), holds(String(stored)) else { continue }
        modules[String(stored)] = module
        renamed.insert("\(other) (here \(last))")
      }
    }
    if !renamed.isEmpty {
      remarks.append(
        "experts are stored under names that their family does not use, read all the same: \(renamed.sorted().joined(separator: ", "))")
    }
  }
}

extension WeightReader {
  /// The same reader for a checkpoint some of whose modules are known by other names; its configuration goes by those in the file.
  ///
  /// - Parameter modules: what a module of the file is called.
  func renaming(_ modules: [String: String], in base: any TensorSource) -> WeightReader {
    let stored = Dictionary(modules.map { ($0.value, $0.key) }) { first, _ in first }
    let inner = self
    var reader = self
    reader.holds = { module, _ in inner.holds(stored[module] ?? module, base) }
    reader.weight = { module, _ throws(CheckpointError) in try inner.weight(stored[module] ?? module, base) }
    reader.input = { module, _ throws(CheckpointError) in try inner.input(stored[module] ?? module, base) }
    reader.cache = { module, _ throws(CheckpointError) in try inner.cache(module, base) }
    return reader
  }
}
