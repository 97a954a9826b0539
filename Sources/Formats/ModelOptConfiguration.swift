import CheckpointIO
import Foundation
import Models
import StrictJSON

/// What NVIDIA's ModelOpt says of the weights it exported, in `quantization_config` or in a file of its own.
struct ModelOptConfiguration: Sendable {
  /// `quant_algo`: what weights and inputs of a linear are.
  enum Algorithm: String, Sendable {
    case fp8 = "FP8"
    case fp8ByChannel = "FP8_PER_CHANNEL_PER_TOKEN"
    case nvfp4 = "NVFP4"
    /// NVFP4 after AWQ; read where its scales of inputs were folded into what stands before.
    case nvfp4AWQ = "NVFP4_AWQ"
    case nvfp4Weights = "W4A16_NVFP4"
  }

  static let fileName = "hf_quant_config.json"

  /// `nil` where each linear has its own.
  private let algorithm: Algorithm?
  private let layers: [String: Algorithm]
  /// Whether keys and values are cached as E4M3.
  let quantizesCache: Bool

  /// `nil` for a configuration of something else.
  ///
  /// - Throws: for what the method can be and is not read.
  init?(reading config: ModelConfig) throws(CheckpointError) {
    guard let json = Self.find(in: config) else { return nil }
    func algorithm(_ json: JSON, _ key: String) throws(CheckpointError) -> Algorithm {
      guard let algorithm = json["quant_algo"]?.string.flatMap({ Algorithm(rawValue: $0) }) else {
        throw .unsupported(
          key, in: .object([.init(key, json["quant_algo"] ?? .null)]),
          "FP8, FP8_PER_CHANNEL_PER_TOKEN, NVFP4, NVFP4_AWQ and W4A16_NVFP4 are read; export the model as one of these")
      }
      return algorithm
    }
    var layers: [String: Algorithm] = [:]
    if json["quant_algo"]?.string == "MIXED_PRECISION" {
      self.algorithm = nil
      for layer in json["quantized_layers"]?.members ?? [] {
        layers[layer.key] = try algorithm(layer.value, "quantized_layers.\(layer.key)")
      }
    } else {
      self.algorithm = try algorithm(json, "quant_algo")
      guard (json["group_size"]?.integer).map({ $0 == 16 || $0 == 0 }) ?? true else {
        throw .unsupported("group_size", in: json, "16 is read")
      }
    }
    self.layers = layers
    let (named, scheme) = (json["kv_cache_quant_algo"], json["kv_cache_scheme"])
    switch named?.string ?? scheme?.string {
    case "FP8": quantizesCache = true
    case let other?: throw .unsupported(named == nil ? "kv_cache_scheme" : "kv_cache_quant_algo", in: json, "\(other) is not read; FP8 is")
    case nil:
      quantizesCache = scheme?.members != nil
      guard scheme?.members == nil || scheme?["num_bits"]?.integer == 8 && scheme?["type"]?.string == "float" else {
        throw .unsupported("kv_cache_scheme", in: json, "8-bit floats are read")
      }
    }
  }

  private static func find(in config: ModelConfig) -> JSON? {
    if let json = config.quantization {
      guard json["quant_method"]?.string?.lowercased() == ModelOptFormat.name || json["producer"]?["name"]?.string == ModelOptFormat.name
      else {
        return nil
      }
      return json["quantization"] ?? json
    }
    // Only for a configuration that was read from a directory: nothing may depend on where the process runs.
    guard config.path.hasPrefix("/") else { return nil }
    let url = URL(filePath: config.path).deletingLastPathComponent().appending(path: fileName)
    guard let data = try? Data(contentsOf: url), let json = try? JSON(parsing: data) else { return nil }
    guard let own = json["quantization"], own["quant_algo"].map({ !$0.isNull }) ?? false else { return nil }
    return own
  }

  /// - Throws: for a linear of mixed precision that the configuration does not name.
  func algorithm(of module: String) throws(CheckpointError) -> Algorithm {
    if let algorithm { return algorithm }
    // Tools that wrap a language model have moved its name behind or before `model`.
    let names = ModuleNames.spellings(ofNested: module)
    guard let found = names.compactMap({ layers[$0] }).first else {
      throw .unsupportedOption(
        option: "quantization_config.quantized_layers", value: module, reason: "its tensors are quantized, and it is not listed")
    }
    return found
  }
}
