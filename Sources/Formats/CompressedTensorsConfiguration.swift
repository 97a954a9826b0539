import CheckpointIO
import Models
import StrictJSON
import Tensors

/// `quantization_config` of a compressed-tensors checkpoint: which scheme belongs to which module.
struct CompressedTensorsConfiguration: Sendable {
  private var groups: [(targets: [String], preset: QuantizationPreset)] = []
  /// The grid that keys and values are cached on, and whether every head has scales of its own.
  typealias Cache = (grid: QuantizationScheme.Grid, isByHead: Bool)
  private(set) var cache: Cache?

  // MARK: Reading

  init(_ json: JSON) throws(CheckpointError) {
    guard let members = json["config_groups"]?.members else {
      throw .unsupportedOption(option: "quantization_config", value: "compressed-tensors", reason: "config_groups is missing")
    }
    for member in members {
      if let targets = member.value.elements?.compactMap(\.string) {
        guard let preset = QuantizationPreset.named(member.key) else {
          throw .unsupportedOption(option: "config_groups", value: member.key, reason: "no such preset is known")
        }
        groups.append((targets, preset))
        continue
      }
      guard let targets = member.value["targets"]?.elements?.compactMap(\.string) else {
        throw .unsupportedOption(option: "config_groups.\(member.key)", value: "", reason: "targets are needed")
      }
      guard let weights = member.value["weights"], !weights.isNull else {
        throw .unsupportedOption(option: "config_groups.\(member.key).weights", value: "null", reason: "weights are needed")
      }
      if let output = member.value["output_activations"], !output.isNull {
        throw .unsupportedOption(
          option: "config_groups.\(member.key).output_activations", value: "", reason: "quantized outputs are not simulated")
      }
      let input = member.value["input_activations"].flatMap { $0.isNull ? nil : $0 }
      groups.append(
        (
          targets,
          QuantizationPreset(
            try Arguments(weights, "config_groups.\(member.key).weights").scheme(),
            try input.map { json throws(CheckpointError) in try Arguments(json, "config_groups.\(member.key).input_activations").input() })
        ))
    }
    if let cache = json["kv_cache_scheme"], !cache.isNull {
      let arguments = Arguments(cache, "kv_cache_scheme")
      let strategy = cache["strategy"]?.string ?? "tensor"
      guard try arguments.bits() == 8, ["tensor", "attn_head"].contains(strategy), cache["dynamic"]?.bool != true else {
        throw arguments.refusal("strategy", "8 bits by static scales of the tensor or of its heads are read")
      }
      self.cache = (try arguments.grid(), strategy == "attn_head")
    }
  }

  /// An exact name wins over an expression, an expression over a class of layers.
  func preset(of module: String) throws(CheckpointError) -> QuantizationPreset {
    if let group = groups.first(where: { $0.targets.contains(module) }) { return group.preset }
    for group in groups {
      for target in group.targets where target.hasPrefix("re:") {
        // Python's re.match: anchored at the start, open at the end.
        if let expression = try? Regex(String(target.dropFirst(3))), (try? expression.prefixMatch(in: module)) ?? nil != nil {
          return group.preset
        }
      }
    }
    if let group = groups.first(where: { $0.targets.contains("Linear") }) { return group.preset }
    throw .unsupportedOption(option: "quantization_config", value: module, reason: "no config group targets this quantized module")
  }

  // MARK: Writing

  /// One group per distinct scheme. The commonest takes the class `Linear`, the others name their modules, and everything of that class
  /// that stays dense is listed under `ignore`.
  static func json(
    for all: [StoredModule], ignoring extra: [String], cache: Cache?, names: ModuleNames
  ) -> JSON {
    let (modules, parts) = names.apart(all)
    func preset(_ module: StoredModule) -> QuantizationPreset? {
      module.scheme.map { scheme in
        var input = module.input
        input?.scale = nil
        return QuantizationPreset(scheme, input)
      }
    }
    let quantized = modules.filter { $0.scheme != nil }
    let presets = quantized.reduce(into: [QuantizationPreset]()) { if !$0.contains(preset($1)!) { $0.append(preset($1)!) } }
    let ofLinears = quantized.filter { !$0.isEmbedding }
    let commonest = presets.max { a, b in ofLinears.count { preset($0) == a } < ofLinears.count { preset($0) == b } }
    // Readers that take the first match must meet the names before the class.
    var groups: [(targets: [String], preset: QuantizationPreset)] = []
    for candidate in presets {
      let named = quantized.filter { preset($0) == candidate && ($0.isEmbedding || candidate != commonest) }
        .flatMap { names.spellings(of: $0.name) }
      if !named.isEmpty { groups.append((named, candidate)) }
    }
    if let commonest, ofLinears.contains(where: { preset($0) == commonest }) { groups.append((["Linear"], commonest)) }
    // transformers reads all experts by the group whose pattern names them, or else by the first that there is.
    let experts = modules.filter { $0.name.contains(".experts.") }
    if groups.count > 1, let first = experts.first, let own = preset(first), experts.allSatisfy({ preset($0) == own }),
      let place = groups.lastIndex(where: { $0.preset == own })
    {
      groups[place].targets.append("re:.*\\.experts\\..*")
    }
    let dense = modules.filter { $0.scheme == nil && !$0.isEmbedding }.map(\.name) + extra
    let ignored = parts.map { "re:.*\($0).*" } + dense.flatMap(names.spellings)
    let formats = groups.map { layout(of: $0.preset) }
    let format = formats.isEmpty ? "dense" : Set(formats).count == 1 ? formats[0] : "mixed-precision"
    return JSON.object([
      .init(
        "config_groups",
        .object(groups.enumerated().map { index, group in .init("group_\(index)", json(for: group.preset, targets: group.targets)) })),
      .init("format", .string(format)), .init("global_compression_ratio", .null),
      .init("ignore", .array(ignored.map { .string($0) })),
      .init("kv_cache_scheme", cache.map { Arguments.json(for: $0) } ?? .null),
      .init("quant_method", .string("compressed-tensors")), .init("quantization_status", .string("compressed")),
      .init("sparsity_config", .object([])), .init("transform_config", .object([])),
      .init("version", .string(CompressedTensorsFormat.version)),
    ])
  }

  /// Everything that comes here has been encoded, so it has a layout.
  private static func layout(of preset: QuantizationPreset) -> String {
    CompressedTensorsLayout(weights: preset.weights, input: preset.input)?.rawValue ?? "dense"
  }

  private static func json(for preset: QuantizationPreset, targets: [String]) -> JSON {
    .object([
      .init("format", .string(layout(of: preset))),
      .init("input_activations", preset.input.map { Arguments.json(for: $0) } ?? .null),
      .init("output_activations", .null), .init("targets", .array(targets.map { .string($0) })),
      .init("weights", Arguments.json(for: preset.weights)),
    ])
  }
}

extension CompressedTensorsConfiguration {
  /// The quantization arguments of weights, inputs or caches, and where in the configuration they stand.
  struct Arguments {
    let json: JSON
    let path: String

    init(_ json: JSON, _ path: String) {
      self.json = json
      self.path = path
    }

    func refusal(_ key: String, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "\(path).\(key)", value: json[key]?.text() ?? "missing", reason: reason)
    }

    func bits() throws(CheckpointError) -> Int {
      let bits = json["num_bits"]?.integer ?? 8
      guard (2...8).contains(bits) else { throw refusal("num_bits", "2 to 8 bits are read") }
      return bits
    }

    func grid() throws(CheckpointError) -> QuantizationScheme.Grid {
      switch (json["type"]?.string ?? "int").lowercased() {
      case "int": return .integer
      case "float":
        guard [4, 8].contains(try bits()) else { throw refusal("num_bits", "floats of 4 and 8 bits are read") }
        return .float
      default: throw refusal("type", "int and float are read")
      }
    }

    private func strategy() -> String {
      let size = json["group_size"]?.integer
      return json["strategy"]?.string ?? (size == nil ? "tensor" : size! > 0 ? "group" : "channel")
    }

    private func groupSize() throws(CheckpointError) -> Int {
      guard let size = json["group_size"]?.integer, size > 0 else { throw refusal("group_size", "a positive number is needed") }
      return size
    }

    func scheme() throws(CheckpointError) -> QuantizationScheme {
      let (bits, grid) = (try bits(), try grid())
      var scheme = QuantizationScheme(bits: bits, grid: grid, granularity: .channel)
      scheme.zeroPoint = json["symmetric"]?.bool ?? true ? .none : .integer
      switch strategy() {
      case "tensor": scheme.granularity = .tensor
      case "channel": break
      case "group", "tensor_group": scheme.granularity = .group(try groupSize())
      case "block":
        let sides =
          json["block_structure"]?.elements?.compactMap(\.integer)
          ?? json["block_structure"]?.string?.split(separator: "x").compactMap { Int($0) } ?? []
        guard sides.count == 2, sides.allSatisfy({ $0 > 0 }) else { throw refusal("block_structure", "[rows, columns] is needed") }
        scheme.granularity = .block(rows: sides[0], columns: sides[1])
      default: throw refusal("strategy", "tensor, channel, group, tensor_group and block are read")
      }
      if grid == .float, scheme.zeroPoint != .none { throw refusal("symmetric", "floats have no zero point") }
      if grid == .float, case .group(let size) = scheme.granularity {
        scheme.scaleType = strategy() == "tensor_group" ? .float8E4M3 : size == 32 ? .float8E8M0 : .bfloat16
        if json["scale_dtype"]?.string?.contains("uint8") == true { scheme.scaleType = .float8E8M0 }
        guard scheme.scaleType != .bfloat16 || bits == 8 else { throw refusal("group_size", "E2M1 comes in groups of 16 or 32") }
      } else if grid == .float, bits == 4 {
        throw refusal("strategy", "E2M1 comes in groups of 16 or 32")
      }
      return scheme
    }

    func input() throws(CheckpointError) -> InputQuantization {
      var input = InputQuantization(bits: try bits(), grid: try grid(), granularity: .token)
      input.symmetric = json["symmetric"]?.bool ?? true
      let isDynamic = json["dynamic"]?.bool == true
      switch (strategy(), isDynamic) {
      case ("token", true): break
      case ("tensor", false):
        guard input.symmetric else { throw refusal("symmetric", "static inputs with zero points are not read") }
        input.granularity = .tensor
      case ("group", true):
        input.granularity = .group(try groupSize())
        if input.grid == .float, input.granularity == .group(32) { input.scaleType = .float8E8M0 }
      case ("tensor_group", false) where json["dynamic"]?.string == "local":
        input.granularity = .group(try groupSize())
        input.scaleType = .float8E4M3
      default:
        throw refusal("strategy", "dynamic tokens and groups, static tensors, and local tensor groups are read")
      }
      return input
    }
  }
}

extension CompressedTensorsConfiguration.Arguments {
  private static func json(
    bits: Int, grid: QuantizationScheme.Grid, strategy: String, size: Int?, symmetric: Bool, dynamic: JSON = .bool(false),
    block: JSON = .null, observer: String? = nil, scaleType: DType?
  ) -> JSON {
    let scale: JSON =
      switch scaleType {
      case .float8E4M3: .string("torch.float8_e4m3fn")
      case .float8E8M0: .string("torch.uint8")
      default: .null
      }
    return .object([
      .init("actorder", .null), .init("block_structure", block), .init("dynamic", dynamic),
      .init("group_size", size.map { .integer($0) } ?? .null), .init("num_bits", .integer(bits)),
      .init("observer", observer.map { .string($0) } ?? .null), .init("observer_kwargs", .object([])), .init("scale_dtype", scale),
      .init("strategy", .string(strategy)), .init("symmetric", .bool(symmetric)),
      .init("type", .string(grid == .float ? "float" : "int")), .init("zp_dtype", symmetric ? .null : .string("torch.int8")),
    ])
  }

  static func json(for scheme: QuantizationScheme) -> JSON {
    var (strategy, size, block) = ("channel", Int?.none, JSON.null)
    switch scheme.granularity {
    case .tensor: strategy = "tensor"
    case .channel: break
    case .group(let count): (strategy, size) = (scheme.hasGlobalScale ? "tensor_group" : "group", count)
    case .block(let rows, let columns): (strategy, block) = ("block", .array([.integer(rows), .integer(columns)]))
    }
    return json(
      bits: scheme.bits, grid: scheme.grid, strategy: strategy, size: size, symmetric: scheme.symmetric, block: block,
      scaleType: scheme.scaleType)
  }

  static func json(for input: InputQuantization) -> JSON {
    var (strategy, size, dynamic) = ("token", Int?.none, JSON.bool(true))
    switch input.granularity {
    case .tensor: (strategy, dynamic) = ("tensor", .bool(false))
    case .token: break
    case .group(let count):
      (strategy, size) = ("group", count)
      if input.scaleType == .float8E4M3 { (strategy, dynamic) = ("tensor_group", .string("local")) }
    }
    return json(
      bits: input.bits, grid: input.grid, strategy: strategy, size: size, symmetric: input.symmetric, dynamic: dynamic,
      observer: input.needsCalibration ? "static_minmax" : nil, scaleType: input.scaleType)
  }

  static func json(for cache: CompressedTensorsConfiguration.Cache) -> JSON {
    json(
      bits: 8, grid: cache.grid, strategy: cache.isByHead ? "attn_head" : "tensor", size: nil, symmetric: true, observer: "static_minmax",
      scaleType: nil)
  }
}
