import CheckpointIO
import Models
import StrictJSON

/// The names that runtimes may know a checkpoint's modules by, where these are not the file's.
///
/// A language model inside a larger one is `language_model.model.…` in the hub's files and in vLLM, and `model.language_model.…` in what
/// transformers 5 runs and older versions save; what stands beside it, such as a vision tower, has `model.` before it or not, and other
/// levels inside. A model that was saved without its head lacks `model.` in the file alone; Nemotron-H's `backbone.` is `model.` in what
/// transformers 5 runs, and the router of Phi-3.5-MoE, a linear there, is another module.
struct ModuleNames: Sendable {
  private static let nested = ["language_model.model.", "model.language_model."]
  /// Whether the language model is a part of a larger one.
  private let isNested: Bool
  /// What runtimes put before the file's names.
  private let missing: String?
  /// How a router's name ends in the file, and in what transformers 5 runs where that takes it for a linear like any other.
  private let router: (own: String, other: String)?

  init(_ modules: [StoredModule], in config: ModelConfig, _ architectures: ArchitectureCatalog) {
    let names = modules.map(\.name)
    router = config.modelType == "phimoe" ? (".block_sparse_moe.gate", ".mlp.router") : nil
    isNested = config.json["text_config"]?.members != nil || names.contains { name in Self.nested.contains { name.hasPrefix($0) } }
    let block = (try? architectures.describe(config))?.blocks.first?.prefix ?? ""
    if !isNested, let dot = block.firstIndex(of: "."), !names.contains(where: { $0.hasPrefix(block) }) {
      let (root, rest) = (String(block[...dot]), String(block[block.index(after: dot)...]))
      missing = names.contains { $0.hasPrefix(rest) } ? root : nil
    } else {
      missing = nil
    }
  }

  /// The file's name and all others.
  func spellings(of module: String) -> [String] {
    if let missing { return [module] + (module == "lm_head" ? [] : [missing + module]) }
    if let router, module.hasSuffix(router.own) { return [module, module.dropLast(router.own.count) + router.other] }
    if module.hasPrefix("backbone.") { return [module, "model." + module.dropFirst("backbone.".count)] }
    return isNested ? Self.spellings(ofNested: module) : [module]
  }

  /// A module's name, and the other where it is one of a language model inside a larger one.
  static func spellings(ofNested module: String) -> [String] {
    for (own, other) in [(nested[0], nested[1]), (nested[1], nested[0])] where module.hasPrefix(own) {
      return [module, other + module.dropFirst(own.count)]
    }
    if module == "lm_head" { return [module, "language_model.lm_head"] }
    return module == "language_model.lm_head" ? [module, "lm_head"] : [module]
  }

  /// The part beside the language model that a module belongs to, such as `vision_tower`; `nil` for modules of the language model.
  private func part(of module: String) -> String? {
    guard isNested else { return nil }
    var parts = module.split(separator: ".")
    if parts.first == "model" { parts.removeFirst() }
    guard parts.count > 1, let first = parts.first, first != "language_model", first != "layers" else { return nil }
    return String(first)
  }

  /// The modules by their own names, and the names of whole parts in place of all that is in them.
  func apart(_ modules: [StoredModule]) -> (modules: [StoredModule], parts: [String]) {
    var (own, parts) = ([StoredModule](), [String]())
    let quantized = modules.filter { $0.scheme != nil }.map(\.name)
    for module in modules {
      guard module.scheme == nil, let part = part(of: module.name), !quantized.contains(where: { $0.contains(part) }) else {
        own.append(module)
        continue
      }
      if !parts.contains(part) { parts.append(part) }
    }
    return (own, parts)
  }
}
