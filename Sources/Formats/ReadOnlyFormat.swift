public import CheckpointIO
public import Models
public import StrictJSON

/// A format of other tools whose checkpoints are read and not written.
public protocol ReadOnlyFormat: CheckpointFormat {
  /// Which formats hold the same numbers, or nearly.
  static var instead: String { get }
}

extension ReadOnlyFormat {
  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    throw .cannotStore(module: module, format: Self.name, reason: "it is read only; \(Self.instead)")
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON { config.withoutQuantization }
}

extension ModelConfig {
  /// `quantization_config`, of the model or of the language model in it; `nil` where nothing is quantized.
  var quantization: JSON? {
    [json["quantization_config"], json["text_config"]?["quantization_config"]].compactMap { $0 }.first { $0.members != nil }
  }
}

extension CheckpointError {
  /// A key of `quantization_config` whose value is not read.
  static func unsupported(_ key: String, in json: JSON, _ reason: String) -> CheckpointError {
    .unsupportedOption(option: "quantization_config.\(key)", value: json[key]?.text() ?? "missing", reason: reason)
  }
}
