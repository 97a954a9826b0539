import CheckpointIO
import Foundation
import Models
import StrictJSON
import Tensors

/// `quantization_config` of a GPTQ checkpoint, or the same object in a file of its own.
struct GPTQConfiguration: Sendable {
  /// What the numbers of one module are.
  struct Numbers: Sendable, Equatable {
    var bits: Int
    /// `nil` for whole rows.
    var groupSize: Int?
    var symmetric: Bool
  }

  let base: Numbers
  let zeros: GPTQLayout.Zeros
  /// Whether auto-round wrote it, which may put other tensors beside a weight: turns of its input.
  let isAutoRound: Bool
  /// Expressions over names of modules, and what they change; the first match counts.
  private let overrides: [(expression: String, json: JSON)]

  // MARK: Reading

  /// `nil` for a configuration of something else.
  ///
  /// - Throws: for what this method can be and is not read: layouts for one kind of GPU, words other than of 32 bits.
  init?(reading config: ModelConfig) throws(CheckpointError) {
    let methods: Set = ["gptq", "marlin", "bitblas", PackedConfiguration.autoRound]
    guard let json = PackedConfiguration.find(in: config, methods: methods, file: "quantize_config.json") else { return nil }
    func refusal(_ key: String, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "quantization_config.\(key)", value: json[key]?.text() ?? "missing", reason: reason)
    }
    isAutoRound = PackedConfiguration.isAutoRound(json)
    if isAutoRound {
      let packing = PackedConfiguration.autoRoundPacking(json) ?? PackedConfiguration.autoRoundOwnPacking
      let isVersion1 = packing == "auto_gptq"
      // Its own packing is what it did before it named one, and is called by the kernels that load it, too.
      guard isVersion1 || [PackedConfiguration.autoRoundOwnPacking, "gptqmodel", "exllamav2", "triton", "tritonv2"].contains(packing) else {
        guard packing != "auto_awq" else { return nil }
        throw refusal("packing_format", "auto_round, auto_round:auto_gptq, auto_round:gptqmodel and auto_round:auto_awq are read")
      }
      if let type = json["data_type"]?.string, type != "int" { throw refusal("data_type", "integers are read") }
      if let bits = json["act_bits"]?.integer, bits < 16 { throw refusal("act_bits", "inputs that are not quantized are read") }
      // Codes of every width are one bit string, those of 5 to 7 bits included.
      zeros = GPTQLayout.Zeros(version: isVersion1 ? .v1 : .v2, planarBits: [])
      base = try Self.numbers(json, over: nil, "quantization_config")
      // Its keys are names or expressions; as an expression a name matches itself.
      overrides = (json["extra_config"]?.members ?? []).map { ("(?:\($0.key))$", $0.value) }
      return
    }
    if let method = json["quant_method"]?.string?.lowercased(), method != "gptq" {
      throw refusal("quant_method", "weights arranged for a GPU's kernel are not read; export the model in the plain gptq layout")
    }
    guard json["is_marlin_format"]?.bool != true else {
      throw refusal("is_marlin_format", "weights arranged for a GPU's kernel are not read; export the model in the plain gptq layout")
    }
    let key = json["checkpoint_format"].map { $0.isNull } == false ? "checkpoint_format" : "format"
    switch json[key]?.string?.lowercased() {
    case "gptq", nil: zeros = GPTQLayout.Zeros(version: .v1, planarBits: [5, 6, 7])
    case "gptq_v2": zeros = GPTQLayout.Zeros(version: .v2, planarBits: [5, 6, 7])
    case "gptq_p": zeros = GPTQLayout.Zeros(version: .v2, planarBits: [3, 5, 6, 7])
    default: throw refusal(key, "gptq, gptq_v2 and gptq_p are read; others are arranged for a GPU's kernel")
    }
    guard json["pack_dtype"]?.string ?? "int32" == "int32" else { throw refusal("pack_dtype", "words of 32 bits are read") }
    base = try Self.numbers(json, over: nil, "quantization_config")
    overrides = (json["dynamic"]?.members ?? []).map { ($0.key, $0.value) }
  }

  private static func numbers(_ json: JSON, over base: Numbers?, _ path: String) throws(CheckpointError) -> Numbers {
    let (bits, size) = (PackedConfiguration.bits(json), PackedConfiguration.groupSize(json))
    guard let bits = bits?.integer ?? base?.bits, (2...8).contains(bits) else {
      throw .unsupportedOption(option: path + ".bits", value: bits?.text() ?? "missing", reason: "2 to 8 bits are read")
    }
    var numbers = Numbers(bits: bits, groupSize: base?.groupSize, symmetric: json["sym"]?.bool ?? base?.symmetric ?? true)
    if let size {
      guard let size = size.integer, size == -1 || size > 0 else {
        throw .unsupportedOption(option: path + ".group_size", value: size.text(), reason: "a positive number or -1 is needed")
      }
      numbers.groupSize = size == -1 ? nil : size
    } else if base == nil {
      throw .unsupportedOption(option: path + ".group_size", value: "missing", reason: "a positive number or -1 is needed")
    }
    return numbers
  }

  /// - Throws: for an expression that is none, and for a module that has codes although the configuration says it is dense.
  func numbers(of module: String) throws(CheckpointError) -> Numbers {
    for (key, json) in overrides {
      let isDense = key.hasPrefix("-:")
      let text = isDense || key.hasPrefix("+:") ? String(key.dropFirst(2)) : key
      guard let expression = try? Regex(text) else {
        throw .unsupportedOption(option: "quantization_config.dynamic", value: key, reason: "this is no regular expression")
      }
      // Python's re.match: anchored at the start, open at the end.
      guard (try? expression.prefixMatch(in: module)) ?? nil != nil else { continue }
      guard !isDense else {
        throw .unsupportedOption(option: "quantization_config.dynamic", value: key, reason: "\(module) is quantized all the same")
      }
      return try Self.numbers(json, over: base, "quantization_config.dynamic.\(key)")
    }
    return base
  }

  // MARK: Writing

  /// The commonest numbers stand for all; `dynamic` names what differs or stays dense.
  ///
  /// - Throws: for a quantized embedding.
  static func json(for all: [StoredModule], version: GPTQFormat.Version, names: ModuleNames) throws(FormatError) -> JSON {
    let (modules, parts) = names.apart(all)
    if let embedding = modules.first(where: { $0.isEmbedding && $0.scheme != nil }) {
      throw .cannotStore(module: embedding.name, format: GPTQFormat.name, reason: PackedConfiguration.embeddingsStayDense)
    }
    func numbers(_ module: StoredModule) -> Numbers? {
      module.scheme.map { scheme in
        let size = if case .group(let count) = scheme.granularity { count } else { Int?.none }
        return Numbers(bits: scheme.bits, groupSize: size, symmetric: scheme.symmetric)
      }
    }
    let linears = modules.filter { !$0.isEmbedding }
    let found = linears.compactMap(numbers)
    let distinct = found.reduce(into: [Numbers]()) { if !$0.contains($1) { $0.append($1) } }
    guard let base = distinct.max(by: { a, b in found.count { $0 == a } < found.count { $0 == b } }) else { return .object([]) }
    func members(_ numbers: Numbers) -> [JSON.Member] {
      [
        .init("bits", .integer(numbers.bits)), .init("group_size", .integer(numbers.groupSize ?? -1)),
        .init("sym", .bool(numbers.symmetric)),
      ]
    }
    let apart = parts.map { JSON.Member("-:.*\($0)", .object([])) }
    let dynamic: [JSON.Member] =
      apart
      + linears.compactMap { module in
        let spellings = names.spellings(of: module.name).map { $0.replacing(".", with: "\\.") }
        let name = "^" + (spellings.count == 1 ? spellings[0] : "(?:\(spellings.joined(separator: "|")))") + "$"
        guard let own = numbers(module) else { return isHead(module.name) ? nil : .init("-:" + name, .object([])) }
        return own == base ? nil : .init("+:" + name, .object(members(own)))
      }
    return .object(
      [.init("quant_method", .string("gptq"))] + members(base) + [
        .init("desc_act", .bool(linears.contains(where: \.hasColumnGroups))),
        .init("lm_head", .bool(linears.contains { isHead($0.name) && $0.scheme != nil })),
        .init("checkpoint_format", .string(version.rawValue)), .init("format", .string(version.rawValue)),
        .init("pack_dtype", .string("int32")),
      ] + (dynamic.isEmpty ? [] : [.init("dynamic", .object(dynamic))]) + [
        .init("meta", .object([.init("quantizer", .array([.string("compress")]))]))
      ])
  }

  /// The head stays dense unless `lm_head` says otherwise.
  private static func isHead(_ name: String) -> Bool { name.split(separator: ".").last == "lm_head" }
}
