public import CheckpointIO
public import StrictJSON

/// Ordinary safetensors: every weight dense, in the type the checkpoint came in. What any runtime loads.
public struct PlainFormat: DenseFormat {
  public static let name = "safetensors"
  public static let summary = "plain dense weights; quantized ones are written as the numbers they stand for"
  public init() {}

  public var storesFactors: Bool { true }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.withoutQuantization
    json["quantization_config"] = LowRankConfiguration.json(for: modules, weights: nil)
    return json
  }
}
