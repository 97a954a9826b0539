public import CheckpointIO
internal import Foundation
public import StrictJSON

/// Hunyuan's first dense models and its first mixture: Llama with norms on queries and keys that have been rotated; the mixture's experts stand
/// beside one that sees every token (Tencent 2025).
public enum Hunyuan: Architecture {
  public static let modelTypes = ["hunyuan_v1_dense", "hunyuan_v1_moe"]

  /// How many experts see a token may be said for each layer.
  public static func respell(_ json: inout JSON, for description: ModelDescription) {
    guard json["moe_topk"]?.elements != nil else { return }
    json["moe_topk"] = .array(description.blocks.map { .integer($0.feedForward?.mixture?.expertsPerToken ?? 1) })
  }

  public static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(stretched(config, headSize: keys.headSize()), DecoderDefaults(epsilon: 1e-5))
    model.eachBlock { _, block in
      block.attention?.queryKeyNorm = .head
      block.attention?.normalizesRotated = true
      block.attention?.queryNormName = "query_layernorm"
      block.attention?.keyNormName = "key_layernorm"
      block.feedForward?.hasBias = false
    }
    guard config.modelType == "hunyuan_v1_moe" else { return model }
    for (key, usual) in [("num_shared_expert", 1), ("moe_layer_num_skipped", 0)] {
      let values = try perLayer(key, config, layers: model.blocks.count, usual: usual)
      guard values.allSatisfy({ $0 == usual }) else {
        throw .unsupportedOption(option: key, value: "\(values)", reason: "transformers computes \(usual) alone")
      }
    }
    let perToken = try perLayer("moe_topk", config, layers: model.blocks.count, usual: config.json["num_experts_per_tok"]?.integer ?? 1)
    let experts = try perLayer("num_experts", config, layers: model.blocks.count, usual: config.json["num_local_experts"]?.integer ?? 1)
    guard Set(experts).count == 1 else {
      throw .unsupportedOption(option: "num_experts", value: "\(experts)", reason: "transformers computes as many in all layers alone")
    }
    for layer in model.blocks.indices {
      let mixture = try MixtureDescription(
        experts: experts[layer], expertsPerToken: perToken[layer], normalizesWeights: true, router: "mlp.gate.wg", prefix: "mlp.experts.",
        shared: .init(size: keys.intermediate_size, prefix: "mlp.shared_mlp.", gate: nil)
      ).checked()
      model.blocks[layer].feedForward?.linears = FeedForwardLinears(.gated(gate: "gate_proj", up: "up_proj"), down: "down_proj")
      model.blocks[layer].feedForward?.mixture = mixture
    }
    return model
  }

  /// One number, whose size is checked as those of other families' keys are.
  private struct Count: Decodable {
    var num_experts: Int
  }

  /// A number for all layers, or a list of one for each.
  private static func perLayer(_ key: String, _ config: ModelConfig, layers: Int, usual: Int) throws(CheckpointError) -> [Int] {
    let found = config.json[key] ?? .integer(usual)
    let listed = found.elements ?? Array(repeating: found, count: layers)
    guard listed.count >= layers else {
      throw .unsupportedOption(option: key, value: "\(listed.count) entries", reason: "\(layers) layers need as many numbers")
    }
    var counts: [Int] = []
    for value in listed.prefix(layers) {
      var one = config
      one.json["num_experts"] = value
      counts.append(try one.decode(Count.self).num_experts)
    }
    return counts
  }

  /// What the family calls dynamic, with a fixed `alpha`, is a larger base at every length: base · alpha^(d / (d − 2)) for heads of d numbers.
  private static func stretched(_ config: ModelConfig, headSize: Int) throws(CheckpointError) -> ModelConfig {
    var config = config
    for key in ["rope_scaling", "rope_parameters"] {
      guard let scaling = config.json[key], let alpha = scaling["alpha"]?.double, alpha != 0,
        (scaling["rope_type"] ?? scaling["type"])?.string == "dynamic"
      else { continue }
      guard alpha > 0, headSize > 2 else {
        throw .unsupportedOption(option: "\(key).alpha", value: "\(alpha)", reason: "it must be positive, and heads larger than 2")
      }
      let base = scaling["rope_theta"]?.double ?? config.json["rope_theta"]?.double ?? 10_000
      let grown = base * pow(alpha, Double(headSize) / Double(headSize - 2))
      config.json[key] = .object([.init("rope_type", .string("default")), .init("rope_theta", .double(grown))])
    }
    return config
  }
}
