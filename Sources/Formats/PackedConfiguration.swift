import CheckpointIO
import Foundation
import Models
import StrictJSON

/// What the configurations of GPTQ and AWQ have in common: where they stand, and the names that older tools gave the same keys.
enum PackedConfiguration {
  static let embeddingsStayDense = "its readers know no quantized embedding; leave it out of the pass's layers"

  /// `quantization_config`, or the file that older tools wrote in its place.
  ///
  /// - Returns: `nil` where neither is there, or it is of another method.
  static func find(in config: ModelConfig, methods: Set<String>, file: String) -> JSON? {
    if let json = config.json["quantization_config"], !json.isNull {
      guard let method = (json["quant_method"] ?? json["method"])?.string?.lowercased(), methods.contains(method) else { return nil }
      return json
    }
    // Only for a configuration that was read from a directory: nothing may depend on where the process runs.
    guard config.path.hasPrefix("/"), config.json["quantization"] == nil else { return nil }
    let url = URL(filePath: config.path).deletingLastPathComponent().appending(path: file)
    guard let data = try? Data(contentsOf: url), let json = try? JSON(parsing: data, allowsRepeatedKeys: true) else { return nil }
    guard let method = (json["quant_method"] ?? json["method"])?.string?.lowercased() else { return json }
    return methods.contains(method) ? json : nil
  }

  /// auto-round writes the layouts of others under a method of its own; `packing_format`, as `auto_round:auto_gptq`, says whose.
  static let autoRound = "auto-round"
  static let autoRoundOwnPacking = "auto_round"
  static func isAutoRound(_ json: JSON) -> Bool { json["quant_method"]?.string?.lowercased() == autoRound }
  static func autoRoundPacking(_ json: JSON) -> String? {
    (json["packing_format"]?.string?.split(separator: ":").last).map(String.init)
  }

  static func bits(_ json: JSON) -> JSON? { json["bits"] ?? json["w_bit"] ?? json["wbits"] }
  static func groupSize(_ json: JSON) -> JSON? { json["group_size"] ?? json["q_group_size"] }
}

extension CheckpointFormat {
  /// - Throws: for a part of the model that has to stay dense and is not.
  func refuseQuantized(_ part: any ModelPart, because reason: String) throws(FormatError) {
    for (name, linear) in part.linears where linear.weight is QuantizedMatrix {
      throw .cannotStore(module: part.fullName(of: name), format: Self.name, reason: reason)
    }
  }
}
