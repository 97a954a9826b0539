import CheckpointIO
import Models
import StrictJSON

/// `quantization_config` of an AWQ checkpoint, or the same object in a file of its own.
struct AWQConfiguration: Sendable {
  enum Version: String, Sendable { case gemm, gemv }

  let version: Version
  /// `nil` for whole rows.
  let groupSize: Int?

  /// `nil` for a configuration of something else.
  init?(reading config: ModelConfig) throws(CheckpointError) {
    let methods: Set = ["awq", PackedConfiguration.autoRound]
    guard let json = PackedConfiguration.find(in: config, methods: methods, file: "quant_config.json") else { return nil }
    if PackedConfiguration.isAutoRound(json), PackedConfiguration.autoRoundPacking(json) != "auto_awq" { return nil }
    func refusal(_ key: String, _ value: JSON?, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "quantization_config.\(key)", value: value?.text() ?? "missing", reason: reason)
    }
    let bits = PackedConfiguration.bits(json)
    guard bits?.integer == 4 else { throw refusal("bits", bits, "4 bits are read") }
    let key = ["version", "format", "checkpoint_format"].first { json[$0]?.string != nil } ?? "version"
    guard let version = Version(rawValue: json[key]?.string?.lowercased() ?? "gemm") else {
      throw refusal(key, json[key], "gemm and gemv are read; others are arranged for a GPU's kernel")
    }
    self.version = version
    let size = PackedConfiguration.groupSize(json)
    guard let size = size?.integer, size == -1 || size > 0 else {
      throw refusal("group_size", size, "a positive number or -1 is needed")
    }
    groupSize = size == -1 ? nil : size
  }

  /// - Throws: where linears differ, which the format has no words for, and for a quantized embedding or head.
  static func json(for all: [StoredModule], names: ModuleNames) throws(FormatError) -> JSON {
    let (modules, parts) = names.apart(all)
    var size: Int?
    for module in modules {
      guard let scheme = module.scheme else { continue }
      func refusal(_ reason: String) -> FormatError { .cannotStore(module: module.name, format: AWQFormat.name, reason: reason) }
      guard !module.isEmbedding, module.name != "lm_head" else { throw refusal(AWQFormat.endsStayDense) }
      let own = if case .group(let count) = scheme.granularity { count } else { -1 }
      guard size ?? own == own else {
        let common = size! > 0 && own > 0 ? "; one that divides all columns is needed, such as \(gcd(own, size!))" : ""
        throw refusal("all linears need the same group size, and this one has \(own), others \(size!)\(common)")
      }
      size = own
    }
    // Some readers look for these inside a name, and some at its beginning.
    let stay = (parts.flatMap { [$0, "model.\($0)"] } + (try Self.unconverted(modules, names))).map { JSON.string($0) }
    return .object([
      .init("quant_method", .string("awq")), .init("bits", .integer(4)), .init("group_size", .integer(size ?? -1)),
      // Zero points are always stored, the middle of the grid where the scheme is symmetric.
      .init("zero_point", .bool(true)), .init("version", .string("gemm")),
      .init("modules_to_not_convert", stay.isEmpty ? .null : .array(stay)),
    ])
  }

  /// The greatest common divisor of two positive numbers (Euclid).
  private static func gcd(_ a: Int, _ b: Int) -> Int { b == 0 ? a : gcd(b, a % b) }

  /// What `modules_to_not_convert` says: parts of the names of dense linears. AutoAWQ looks for them in names inside a block, the others
  /// in whole names, so the name inside the block is said where it speaks for all blocks.
  private static func unconverted(_ modules: [StoredModule], _ names: ModuleNames) throws(FormatError) -> [String] {
    let linears = modules.filter { !$0.isEmbedding }
    func insideBlock(_ name: String) -> String {
      let parts = name.split(separator: ".")
      guard let index = parts.lastIndex(where: { Int($0) != nil }) else { return name }
      return parts[(index + 1)...].joined(separator: ".")
    }
    let quantized = linears.filter { $0.scheme != nil }.map(\.name)
    var words: [String] = []
    for module in linears where module.scheme == nil {
      let short = insideBlock(module.name)
      guard let word = [short, module.name].first(where: { word in !quantized.contains { $0.contains(word) } }) else {
        throw .cannotStore(
          module: module.name, format: AWQFormat.name, reason: "it stays dense, and its name is part of that of a quantized linear")
      }
      let spellings = word == module.name ? names.spellings(of: word) : [word]
      words += spellings.filter { !words.contains($0) }
    }
    return words
  }
}
