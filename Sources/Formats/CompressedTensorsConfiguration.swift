import CheckpointIO
import Models
import StrictJSON

/// `quantization_config` of a compressed-tensors checkpoint: which scheme belongs to which module.
struct CompressedTensorsConfiguration: Sendable {
  struct Scheme: Sendable, Equatable {
    var bits: Int
    /// `nil` for one scale a row.
    var groupSize: Int?
    var symmetric: Bool
  }

  private var groups: [(targets: [String], scheme: Scheme)] = []

  // MARK: Reading

  init(_ json: JSON) throws(CheckpointError) {
    guard let members = json["config_groups"]?.members else {
      throw .unsupportedOption(option: "quantization_config", value: "compressed-tensors", reason: "config_groups is missing")
    }
    for member in members {
      guard let targets = member.value["targets"]?.elements?.compactMap(\.string), let weights = member.value["weights"] else {
        throw .unsupportedOption(option: "config_groups.\(member.key)", value: "", reason: "targets and weights are needed")
      }
      groups.append((targets, try Self.scheme(weights, group: member.key)))
    }
  }

  private static func scheme(_ weights: JSON, group: String) throws(CheckpointError) -> Scheme {
    func refuse(_ key: String, _ value: JSON?, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "config_groups.\(group).weights.\(key)", value: value?.text() ?? "missing", reason: reason)
    }
    let bits = weights["num_bits"]?.integer ?? 8
    guard (2...8).contains(bits) else { throw refuse("num_bits", weights["num_bits"], "2 to 8 bits are read") }
    guard (weights["type"]?.string ?? "int").lowercased() == "int" else {
      throw refuse("type", weights["type"], "only int weights are read")
    }
    let size = weights["group_size"]?.integer
    let implied = size == nil ? "tensor" : size! > 0 ? "group" : "channel"
    switch weights["strategy"]?.string ?? implied {
    case "group":
      guard let size, size > 0 else { throw refuse("group_size", weights["group_size"], "a positive number is needed") }
      return Scheme(bits: bits, groupSize: size, symmetric: weights["symmetric"]?.bool ?? true)
    case "channel": return Scheme(bits: bits, groupSize: nil, symmetric: weights["symmetric"]?.bool ?? true)
    default: throw refuse("strategy", weights["strategy"], "group and channel are read")
    }
  }

  /// An exact name wins over an expression, an expression over a class of layers.
  func scheme(of module: String) throws(CheckpointError) -> Scheme {
    if let group = groups.first(where: { $0.targets.contains(module) }) { return group.scheme }
    for group in groups {
      for target in group.targets where target.hasPrefix("re:") {
        // Python's re.match: anchored at the start, open at the end.
        if let expression = try? Regex(String(target.dropFirst(3))), (try? expression.prefixMatch(in: module)) ?? nil != nil {
          return group.scheme
        }
      }
    }
    if let group = groups.first(where: { $0.targets.contains("Linear") }) { return group.scheme }
    throw .unsupportedOption(option: "quantization_config", value: module, reason: "no config group targets this packed module")
  }

  // MARK: Writing

  /// One group per distinct scheme. The commonest takes the class `Linear`, the others name their modules, and everything of that class
  /// that stays dense is listed under `ignore`.
  static func json(for modules: [StoredModule], ignoring extra: [String]) -> JSON {
    let quantized = modules.filter { $0.scheme != nil }
    let schemes = quantized.reduce(into: [QuantizationScheme]()) { if !$0.contains($1.scheme!) { $0.append($1.scheme!) } }
    let ofLinears = quantized.filter { !$0.isEmbedding }
    let commonest = schemes.max { a, b in ofLinears.count { $0.scheme == a } < ofLinears.count { $0.scheme == b } }
    // Readers that take the first match must meet the names before the class.
    var groups: [(targets: [String], scheme: QuantizationScheme)] = []
    for scheme in schemes {
      let named = quantized.filter { $0.scheme == scheme && ($0.isEmbedding || scheme != commonest) }.map(\.name)
      if !named.isEmpty { groups.append((named, scheme)) }
    }
    if let commonest, ofLinears.contains(where: { $0.scheme == commonest }) { groups.append((["Linear"], commonest)) }
    let ignored = modules.filter { $0.scheme == nil && !$0.isEmbedding }.map(\.name) + extra
    return JSON.object([
      .init(
        "config_groups",
        .object(groups.enumerated().map { index, group in .init("group_\(index)", json(for: group.scheme, targets: group.targets)) })),
      .init("format", .string("pack-quantized")), .init("global_compression_ratio", .null),
      .init("ignore", .array(ignored.map { .string($0) })), .init("kv_cache_scheme", .null),
      .init("quant_method", .string("compressed-tensors")), .init("quantization_status", .string("compressed")),
      .init("sparsity_config", .object([])), .init("transform_config", .object([])),
      .init("version", .string(CompressedTensorsFormat.version)),
    ])
  }

  private static func json(for scheme: QuantizationScheme, targets: [String]) -> JSON {
    let size: JSON
    let strategy: String
    switch scheme.granularity {
    case .channel: (size, strategy) = (.null, "channel")
    case .group(let count): (size, strategy) = (.integer(count), "group")
    }
    let weights = JSON.object([
      .init("actorder", .null), .init("block_structure", .null), .init("dynamic", .bool(false)), .init("group_size", size),
      .init("num_bits", .integer(scheme.bits)), .init("observer", .null), .init("observer_kwargs", .object([])),
      .init("scale_dtype", .null), .init("strategy", .string(strategy)), .init("symmetric", .bool(scheme.symmetric)),
      .init("type", .string("int")), .init("zp_dtype", scheme.symmetric ? .null : .string("torch.int8")),
    ])
    return .object([
      .init("format", .string("pack-quantized")), .init("input_activations", .null), .init("output_activations", .null),
      .init("targets", .array(targets.map { .string($0) })), .init("weights", weights),
    ])
  }
}
