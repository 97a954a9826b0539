internal import Foundation
public import Passes
internal import StrictJSON

/// Where the calibration tokens come from.
public struct CalibrationSource: Sendable, Codable, Equatable {
  /// Text files,
  public var text: TextSources?
  /// or a file of token ids,
  public var tokens: String?
  /// or what the model itself says: `self` in recipes.
  public var sampled: SelfSampling?
  /// Statistics that `compress calibrate` saved; beside them, text or tokens only say what they must have been made of.
  public var statistics: String?
  public var sequences = 128
  /// Tokens of a sequence; of documents, the most.
  public var length = 2048
  public var packing = Packing.concatenate
  /// Whether documents are read in an order drawn by the seed, and so are the parts of a lone one.
  public var shuffle = false

  private enum CodingKeys: String, CodingKey { case text, tokens, sampled = "self", statistics, sequences, length, packing, shuffle }

  public init(
    text: TextSources? = nil, tokens: String? = nil, sampled: SelfSampling? = nil, statistics: String? = nil, sequences: Int = 128,
    length: Int = 2048, packing: Packing = .concatenate, shuffle: Bool = false
  ) {
    self.text = text
    self.tokens = tokens
    self.sampled = sampled
    self.statistics = statistics
    self.sequences = sequences
    self.length = length
    self.packing = packing
    self.shuffle = shuffle
  }
}

/// What the result is scored on.
public struct EvaluationSource: Sendable, Codable, Equatable {
  public var text: TextSources?
  public var tokens: String?
  public var window = 2048
  /// Tokens between two windows' starts; absent for no overlap.
  public var stride: Int?
  /// Tokens fed at a time through the key-value cache; absent for whole windows at once, except in blocks with a cache policy.
  public var chunk: Int?
  /// At most so many tokens are used, from the start.
  public var limit: Int?

  public init(
    text: TextSources? = nil, tokens: String? = nil, window: Int = 2048, stride: Int? = nil, chunk: Int? = nil, limit: Int? = nil
  ) {
    self.text = text
    self.tokens = tokens
    self.window = window
    self.stride = stride
    self.chunk = chunk
    self.limit = limit
  }
}

public struct OutputOptions: Sendable, Codable, Equatable {
  public var format = "compressed-tensors"
  /// The directory to be made; the command line may name it instead.
  public var directory: String?
  /// Bytes of tensors in a shard: a number, or one with KB, MB, GB (decimal).
  public var maxShardSize = "5GB"
  public var mixedGroups = MixedGroups.refuse

  /// What becomes of linears that runtimes compute as one and that are to be in unlike formats.
  public enum MixedGroups: String, Sendable, Codable, CaseIterable { case refuse, allow }

  public init() {}

  private enum CodingKeys: String, CodingKey { case format, directory, maxShardSize = "max_shard_size", mixedGroups = "mixed_groups" }
}

/// What to do to a model, as a file says it.
public struct Recipe: Sendable {
  public var model: String?
  public var calibration: CalibrationSource?
  /// What passes measure predictions on before they choose: texts like those the result will be scored on, but others.
  public var probes: CalibrationSource?
  /// Changing them forgets where in the file they came from.
  public var passes: [any Pass] { didSet { options = [] } }
  public var output = OutputOptions()
  public var evaluation: EvaluationSource?
  public var seed: UInt64 = 0
  /// What the file said that has no meaning here.
  public private(set) var remarks: [String] = []
  /// The options of each pass as the file has them.
  private(set) var options: [RecipeNode] = []

  public init(passes: [any Pass]) { self.passes = passes }

  /// - Parameters:
  ///   - yaml: a recipe of ours or of llm-compressor.
  ///   - file: the name of the recipe in messages; of Markdown (`.md`), the front matter is read.
  ///   - settings: changes on top of the file, each `path.to.key=value`.
  /// - Throws: `RecipeError` for the first mistake.
  public init(yaml: String, file: String, settings: [String] = [], passes catalog: PassCatalog) throws(RecipeError) {
    var root = try RecipeNode(yaml: file.hasSuffix(".md") ? try FrontMatter.of(yaml, file: file) : yaml, file: file)
    var remarks: [String] = []
    if LLMCompressor.wrote(root) { (root, remarks) = try LLMCompressor.translate(root, catalog) }
    for setting in settings {
      guard let equals = setting.firstIndex(of: "=") else {
        throw RecipeError(
          file: "--set \(setting)", line: 0, column: 0, problem: .invalid(setting, reason: "key=value is needed"), suggestion: nil)
      }
      let path = setting[..<equals].split(separator: ".").map(String.init)
      let value = String(setting[setting.index(after: equals)...])
      root = try root.setting(path, to: try RecipeNode(yaml: value.isEmpty ? "null" : value, file: "--set \(setting)"))
    }
    try self.init(root, catalog)
    self.remarks = remarks
  }

  private init(_ root: RecipeNode, _ catalog: PassCatalog) throws(RecipeError) {
    let whole = StrictDecoder(node: root, name: "recipe")
    guard case .mapping(let members) = root.value else {
      throw whole.error([], .invalid("recipe", reason: "a mapping with a `passes` list is needed"))
    }
    let known = ["model", "calibration", "probes", "passes", "output", "evaluation", "seed"]
    for member in members where !known.contains(member.key) {
      throw whole.error([member.key], .unknownKey(member.key, known: known), suggestion: NearestName.of(member.key, among: known))
    }
    guard let list = root["passes"] else { throw whole.error([], .missing("passes", reason: "a recipe is a list of passes")) }
    guard case .list(let entries) = list.value, !entries.isEmpty else {
      throw whole.error(["passes"], .invalid("passes", reason: "a list of at least one pass is needed"))
    }
    var passes: [any Pass] = []
    var options: [RecipeNode] = []
    for entry in entries {
      let (pass, node) = try Self.pass(entry, catalog)
      passes.append(pass)
      options.append(node)
    }
    self.init(passes: passes)
    self.options = options
    if let node = root["model"], !node.json.isNull {
      guard let path = node.json.string else { throw whole.error(["model"], .invalid("model", reason: "a directory is needed")) }
      model = path
    }
    if let node = root["seed"], !node.json.isNull {
      guard case .number(let text) = node.json, let value = UInt64(text) else {
        throw whole.error(["seed"], .invalid("seed", reason: "a whole number is needed"))
      }
      seed = value
    }
    if let node = root["output"] { output = try StrictDecoder(node: node, name: "output").decode(OutputOptions.self, defaults: .init()) }
    if let node = root["calibration"], !node.json.isNull { calibration = try Self.sequences(node, "calibration", .init()) }
    if let node = root["probes"], !node.json.isNull {
      let decoder = StrictDecoder(node: node, name: "probes")
      for key in ["self", "statistics"] where node[key].map({ !$0.json.isNull }) == true {
        throw decoder.error([key], .invalid("probes.\(key)", reason: "predictions are measured on `text` or `tokens`"))
      }
      probes = try Self.sequences(node, "probes", .init(sequences: 8, length: calibration?.length ?? 2048))
    }
    if let node = root["evaluation"], !node.json.isNull {
      let decoder = StrictDecoder(node: node, name: "evaluation")
      let source = try decoder.decode(EvaluationSource.self, defaults: .init())
      try Self.checkSource(source.text, source.tokens, decoder)
      guard source.window > 1 else {
        throw decoder.error(["window"], .invalid("evaluation.window", reason: "at least two tokens are needed"))
      }
      guard source.stride.map({ $0 > 0 }) ?? true else {
        throw decoder.error(["stride"], .invalid("evaluation.stride", reason: "a positive number is needed"))
      }
      guard source.chunk.map({ $0 > 0 }) ?? true else {
        throw decoder.error(["chunk"], .invalid("evaluation.chunk", reason: "a positive number is needed"))
      }
      guard source.limit.map({ $0 > 1 }) ?? true else {
        throw decoder.error(["limit"], .invalid("evaluation.limit", reason: "at least two tokens are needed"))
      }
      if let place = source.text?.files.firstIndex(where: { $0.weight != 1 }) {
        throw decoder.error(
          ["text", "\(place)", "weight"],
          .invalid("evaluation.text.\(place).weight", reason: "all of the text is scored; weights mix calibration data"))
      }
      evaluation = source
    }
  }

  private static func sequences(_ node: RecipeNode, _ name: String, _ defaults: CalibrationSource) throws(RecipeError) -> CalibrationSource
  {
    let decoder = StrictDecoder(node: node, name: name)
    let source = try decoder.decode(CalibrationSource.self, defaults: defaults)
    try check(source, decoder)
    guard source.sequences > 0 else {
      throw decoder.error(["sequences"], .invalid("\(name).sequences", reason: "at least one is needed"))
    }
    guard source.length > 1 else {
      throw decoder.error(["length"], .invalid("\(name).length", reason: "at least two tokens are needed"))
    }
    guard source.packing == .concatenate || source.text != nil else {
      throw decoder.error(["packing"], .invalid("\(name).packing", reason: "token files are cut as they come; documents need text"))
    }
    return source
  }

  private static func check(_ source: CalibrationSource, _ decoder: StrictDecoder) throws(RecipeError) {
    guard let sampled = source.sampled else {
      // Saved statistics may say alone what they are of.
      if source.statistics == nil || source.text != nil || source.tokens != nil { try checkSource(source.text, source.tokens, decoder) }
      return
    }
    guard source.text == nil, source.tokens == nil, source.statistics == nil else {
      throw decoder.error(["self"], .invalid("calibration.self", reason: "it takes the place of `text`, `tokens` and `statistics`"))
    }
    guard !source.shuffle else {
      throw decoder.error(["shuffle"], .invalid("calibration.shuffle", reason: "what is drawn from the model is drawn by the seed"))
    }
    guard sampled.temperature >= 0, sampled.temperature.isFinite else {
      throw decoder.error(["self", "temperature"], .invalid("calibration.self.temperature", reason: "0 or a positive number is needed"))
    }
    guard sampled.topP > 0, sampled.topP <= 1 else {
      throw decoder.error(["self", "top_p"], .invalid("calibration.self.top_p", reason: "a number above 0, at most 1, is needed"))
    }
  }

  private static func checkSource(_ text: TextSources?, _ tokens: String?, _ decoder: StrictDecoder) throws(RecipeError) {
    guard (text == nil) != (tokens == nil) else {
      throw decoder.error([], .invalid(decoder.name, reason: "either `text` or `tokens` names the file"))
    }
    guard let files = text?.files else { return }
    guard !files.isEmpty else { throw decoder.error(["text"], .invalid("\(decoder.name).text", reason: "at least one file is needed")) }
    for (index, file) in files.enumerated() where !(file.weight > 0 && file.weight.isFinite) || file.separator?.isEmpty == true {
      let key = file.separator?.isEmpty == true ? "separator" : "weight"
      let reason = key == "weight" ? "a positive number is needed" : "a text that is not empty is needed"
      throw decoder.error(["text", "\(index)", key], .invalid("\(decoder.name).text.\(index).\(key)", reason: reason))
    }
  }

  /// A pass is its name, or its name over its options.
  private static func pass(_ entry: RecipeNode, _ catalog: PassCatalog) throws(RecipeError) -> (pass: any Pass, options: RecipeNode) {
    let whole = StrictDecoder(node: entry, name: "passes")
    var name = ""
    var options = entry
    switch entry.value {
    case .scalar(.string(let word)):
      name = word
      options.value = .mapping([])
    case .mapping(let members) where members.count == 1: (name, options) = (members[0].key, members[0].node)
    default: throw whole.error([], .invalid("passes", reason: "one pass name over its options is needed in each entry"))
    }
    guard let type = catalog[name] else {
      throw whole.error([name], .unknownPass(name, known: catalog.names), suggestion: NearestName.of(name, among: catalog.names))
    }
    return try decode(type, options, name)
  }

  private static func decode<P: Pass>(
    _: P.Type, _ given: RecipeNode, _ name: String
  ) throws(RecipeError) -> (pass: any Pass, options: RecipeNode) {
    let takesScheme = NamedScheme.isTaken(by: Set(KeyRecorder.paths(of: P()).filter { $0.count == 1 }.map { $0[0] }))
    let options = takesScheme ? try NamedScheme.expanded(given, of: name) : given
    let decoder = StrictDecoder(node: options, name: name, shorthands: takesScheme ? [NamedScheme.key] : [])
    let pass = try decoder.decode(P.self, defaults: P())
    do throws(InvalidOption) { try pass.validate() } catch {
      let path = error.option.replacing("[", with: ".").replacing("]", with: "").split(separator: ".").map(String.init)
      throw decoder.error(path, .invalid("\(P.name).\(error.option)", reason: error.reason))
    }
    return (pass, options)
  }

  // MARK: Printing

  private static func options(of pass: some Pass) -> JSON { StrictDecoder.encode(pass.effective) }

  /// The effective recipe, all defaults included; reading it back gives the same passes.
  public var yaml: String {
    var members: [JSON.Member] = []
    if let model { members.append(.init("model", .string(model))) }
    if let calibration { members.append(.init("calibration", StrictDecoder.encode(calibration))) }
    if let probes { members.append(.init("probes", StrictDecoder.encode(probes))) }
    let entries = passes.map { pass in JSON.object([.init(type(of: pass).name, Self.options(of: pass))]) }
    members.append(.init("passes", .array(entries)))
    members.append(.init("output", StrictDecoder.encode(output)))
    if let evaluation { members.append(.init("evaluation", StrictDecoder.encode(evaluation))) }
    members.append(.init("seed", .number("\(seed)")))
    return RecipeNode.yaml(.object(members))
  }
}
