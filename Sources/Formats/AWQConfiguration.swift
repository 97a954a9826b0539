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
    guard let json = PackedConfiguration.find(in: config, methods: ["awq"], file: "quant_config.json") else { return nil }
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
  static func json(for modules: [StoredModule]) throws(FormatError) -> JSON {
    var size: Int?
    for module in modules {
      guard let scheme = module.scheme else { continue }
      func refusal(_ reason: String) -> FormatError { .cannotStore(module: module.name, format: AWQFormat.name, reason: reason) }
      guard !module.isEmbedding, module.name != "lm_head" else { throw refusal(AWQFormat.endsStayDense) }
      let own = if case .group(let count) = scheme.granularity { count } else { -1 }
      guard size ?? own == own else { throw refusal("all linears need the same group size, and this one has \(own), others \(size!)") }
      size = own
    }
    let stay = modules.filter { $0.scheme == nil && !$0.isEmbedding }.map { JSON.string($0.name) }
    return .object([
      .init("quant_method", .string("awq")), .init("bits", .integer(4)), .init("group_size", .integer(size ?? -1)),
      // Zero points are always stored, the middle of the grid where the scheme is symmetric.
      .init("zero_point", .bool(true)), .init("version", .string("gemm")),
      .init("modules_to_not_convert", stay.isEmpty ? .null : .array(stay)),
    ])
  }
}
