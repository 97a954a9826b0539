import CheckpointIO
import Foundation
import StrictJSON

extension RotaryDescription {
  /// Reads both spellings: top-level `rope_theta` with `rope_scaling`, and the newer `rope_parameters`.
  ///
  /// - Parameters:
  ///   - base: the family's default.
  ///   - fraction: the share of a head that is turned, where the configuration does not say.
  ///   - layerType: which of several parts of `rope_parameters` is read, where it has parts.
  init(
    _ config: ModelConfig, base defaultBase: Double = 10_000, fraction defaultFraction: Double = 1, headSize: Int,
    layerType: String = "full_attention"
  ) throws(CheckpointError) {
    let json = config.json
    let scaling = json["rope_scaling"].flatMap { $0.members?.isEmpty == false ? $0 : nil }
    var parameters = scaling ?? json["rope_parameters"].flatMap { $0.isNull ? nil : $0 } ?? .object([])
    if let part = parameters[layerType], part.members != nil { parameters = part }
    let base = parameters["rope_theta"]?.double ?? json["rope_theta"]?.double ?? defaultBase
    var fraction = parameters["partial_rotary_factor"]?.double ?? json["partial_rotary_factor"]?.double ?? defaultFraction
    guard base > 0, base.isFinite else {
      throw .unsupportedOption(option: "rope_theta", value: "\(base)", reason: "frequencies are its powers, so it must be positive")
    }
    let share = fraction
    // Pairs are made of the whole head, and of these a share is turned.
    if parameters["rope_type"]?.string == "proportional", share > 0, share <= 1 { fraction = 1 }
    let size = fraction > 0 && fraction <= 1 ? Int(Double(headSize) * fraction) : 0
    guard size > 0, size % 2 == 0 else {
      throw .unsupportedOption(
        option: "partial_rotary_factor", value: "\(fraction)", reason: "an even number of the \(headSize) dimensions of a head is needed")
    }
    let keys = RotaryScalingKeys(json: json, parameters: parameters, base: base, share: share, pairs: size / 2)
    self.init(base: base, scaling: try keys.scaling(), fraction: fraction)
  }
}

/// The part of a configuration that says how rotary frequencies are stretched.
private struct RotaryScalingKeys {
  let json: JSON
  let parameters: JSON
  let base: Double
  /// Of a head, what is turned.
  let share: Double
  let pairs: Int

  private var type: String { parameters["rope_type"]?.string ?? parameters["type"]?.string ?? "default" }

  private func refusal(_ reason: String) -> CheckpointError { .unsupportedOption(option: "rope_scaling", value: type, reason: reason) }

  private func required(_ key: String) throws(CheckpointError) -> Double {
    guard let value = parameters[key]?.double, value > 0, value.isFinite else { throw refusal("it needs a positive \"\(key)\"") }
    return value
  }

  private static func isLength(_ value: Double) -> Bool { value > 0 && value <= Double(Int32.max) }

  /// Positions the model was first trained for.
  private func original() throws(CheckpointError) -> Double {
    let key = "original_max_position_embeddings"
    guard let value = json[key]?.double ?? parameters[key]?.double ?? json["max_position_embeddings"]?.double, Self.isLength(value) else {
      throw refusal("it needs \"\(key)\", a number of positions")
    }
    return value
  }

  func scaling() throws(CheckpointError) -> RotaryDescription.Scaling {
    switch type {
    // Of text alone, positions in time, height and width are one.
    case "default", "mrope": return .none
    case "linear": return .linear(factor: try required("factor"))
    case "dynamic":
      guard let positions = json["max_position_embeddings"]?.double, Self.isLength(positions), pairs > 1 else {
        throw refusal("it needs \"max_position_embeddings\", and more than one pair of dimensions")
      }
      return .dynamic(factor: try required("factor"), positions: positions)
    case "llama3":
      return .llama3(
        factor: try required("factor"), low: try required("low_freq_factor"), high: try required("high_freq_factor"),
        originalPositions: try original())
    // Older Phi-3 configurations call LongRoPE so.
    case "yarn" where parameters["short_factor"] != nil: return try longrope()
    case "yarn": return try yarn()
    case "longrope", "su": return try longrope()
    case "proportional":
      return .proportional(share: share, factor: parameters["factor"] == nil ? 1 : try required("factor"))
    default: throw refusal("default, linear, dynamic, llama3, yarn, longrope and proportional are known")
    }
  }

  private func yarn() throws(CheckpointError) -> RotaryDescription.Scaling {
    let original = try original()
    let stretched = (json["max_position_embeddings"]?.double).map { $0 / original }
    guard let factor = parameters["factor"]?.double ?? stretched, factor > 0 else { throw refusal("it needs a positive \"factor\"") }
    func gain(_ scale: Double) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }
    var attention = gain(1)
    if let scale = parameters["mscale"]?.double, let all = parameters["mscale_all_dim"]?.double, scale != 0, all != 0 {
      attention = gain(scale) / gain(all)
    }
    return .yarn(
      factor: factor, originalPositions: original, fast: parameters["beta_fast"]?.double ?? 32,
      slow: parameters["beta_slow"]?.double ?? 1, truncates: parameters["truncate"]?.bool ?? true,
      attention: parameters["attention_factor"]?.double ?? attention)
  }

  private func longrope() throws(CheckpointError) -> RotaryDescription.Scaling {
    let original = try original()
    func factors(_ key: String) throws(CheckpointError) -> [Double] {
      guard let values = parameters[key]?.elements?.compactMap(\.double), values.count == pairs, values.allSatisfy({ $0 > 0 }) else {
        throw refusal("\"\(key)\" should be \(pairs) positive numbers, one for each pair of dimensions")
      }
      return values
    }
    let stretched = parameters["factor"]?.double ?? (json["max_position_embeddings"]?.double ?? original) / original
    return .longrope(
      short: try factors("short_factor"), long: try factors("long_factor"), originalPositions: original,
      attention: parameters["attention_factor"]?.double ?? (stretched <= 1 ? 1 : (1 + log(stretched) / log(original)).squareRoot()))
  }
}
