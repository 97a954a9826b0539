import Foundation
public import Models
public import Passes
import Tensors

/// SmoothQuant: moves a scale per channel from the inputs of linears into their weights, so that inputs are easier to quantize
/// (Xiao et al. 2022, equation 4: s = max|x|^α / max|w|^(1−α)); a transform, to be followed by a pass that quantizes both.
///
/// The strength α may be chosen for every scale by what the output of attention or of the feed-forward layer loses once weights and inputs are
/// rounded as the pass that follows will round them.
public struct SmoothQuant: BlockPass {
  public static let name = "smoothquant"
  public static let summary = "scales that move the range of inputs into the weights, before a pass that quantizes both"

  /// What divides the scaled input.
  public enum Producers: String, Sendable, Codable, CaseIterable {
    /// Norms alone, as in the reference.
    case norms
    /// Also the linears before the output and the down-projection.
    case all
  }

  public var strength = Strength.auto
  public var producers = Producers.norms
  /// Calibration sequences from which losses are measured, for `auto`.
  public var sequences = 32
  /// Tokens of them, for `auto`.
  public var tokens = 1024
  /// The linears that may be scaled; a scale moves only if all that read the scaled input are among them.
  public var layers = LayerSelector()

  public init() {}

  /// Strengths that `auto` chooses from, besides no scaling at all.
  static let strengths: [Float] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]

  public var isExact: Bool { true }

  public func validate() throws(InvalidOption) {
    if case .fixed(let value) = strength, !(0...1 ~= value) { throw InvalidOption("strength", "\(value): between 0 and 1, or auto") }
    guard sequences >= 1 else { throw InvalidOption("sequences", "\(sequences): at least one is needed") }
    guard tokens >= 1 else { throw InvalidOption("tokens", "\(tokens): at least one is needed") }
  }

  public func validate(before following: [any Pass]) throws(InvalidOption) {
    if strength == .auto { try QuantizerPreview.check(following, because: "strength auto is judged by what is quantized afterwards") }
  }

  /// - Throws: `InvalidOption` where norms alone may be divided and no norm is read by linears only, as in blocks with norms on the sums.
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    let hasNorm = description.blocks.contains { block in
      block.scalings.contains { if case .norm = $0.producer { true } else { false } }
    }
    guard producers == .all || hasNorm else {
      throw InvalidOption("producers", "no norm of this model is read by linears alone, so no scale can move; all also scales the values")
    }
    return description
  }

  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear {
    try linear.checkUnquantized(in: description) { scaling, block in
      if producers == .norms, case .linear = scaling.producer { return false }
      return layers.moves(scaling, in: block)
    }
    return linear
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    let scalings = block.description.scalings.filter { scaling in
      if producers == .norms, case .linear = scaling.producer { return false }
      return scaling.consumers.allSatisfy { block.isNamedOnly($0) || block.selects(layers, $0) }
    }
    guard !scalings.isEmpty else { return }
    for scaling in scalings { try scaling.checkUnquantized(in: block) }
    // All before any weight changes: what is scaled later sees the same inputs as before.
    let inputs = try scalings.map { try context.statistic(InputMaximum.self, of: $0.input, in: block) }
    var search: ScalingSearch?
    if strength == .auto {
      let sample = try BlockSample(of: block, sequences: try context.inputs(of: block, limit: sequences), tokens: tokens)
      search = ScalingSearch(sample: sample, preview: QuantizerPreview(context.following))
    }
    for (scaling, input) in zip(scalings, inputs) {
      guard input.tokens > 0 else {
        for name in scaling.consumers { try context.recordFallback(name, in: block, "\(Unreached.reason): left unscaled") }
        continue
      }
      let maxima = scaling.channelMaxima(input.values)
      let weights = Self.columnMaxima(of: scaling, in: block)
      func candidate(_ strength: Float) -> ScalingSearch.Candidate {
        .init(
          scale: Self.scale(inputs: maxima, weights: weights, strength: strength), metrics: ["strength": Double(strength)])
      }
      var metrics: [String: Double]
      switch strength {
      case .fixed(let strength):
        let candidate = candidate(Float(strength))
        scaling.apply(candidate.scale, to: &block)
        metrics = candidate.metrics
      case .auto:
        guard let choice = try search!.choose(scaling, among: Self.strengths.map(candidate), for: block) else { continue }
        guard choice.unscaledLoss.isFinite else {
          for name in scaling.consumers { try context.recordFallback(name, in: block, "its loss is not finite: left unscaled") }
          continue
        }
        if choice.candidate != nil { block = choice.block }
        metrics = choice.candidate?.metrics ?? [:]
        metrics["unscaled_loss"] = choice.unscaledLoss
        metrics["loss"] = choice.loss
        metrics["reverted"] = choice.candidate == nil ? 1 : 0
      }
      for name in scaling.consumers { context.record(name, in: block, metrics) }
    }
  }

  /// max|x|^α / max|w|^(1−α), at least 10⁻⁵; 1 for a channel that is never active or has no weights.
  static func scale(inputs: [Float], weights: [Float], strength: Float) -> [Float] {
    zip(inputs, weights).map { input, weight in
      guard input > 0, weight > 0 else { return 1 }
      let scale = pow(input, strength) / pow(weight, 1 - strength)
      return scale.isFinite ? max(scale, 1e-5) : 1
    }
  }

  /// The largest |w| of every channel over all linears that read it.
  static func columnMaxima(of scaling: Scaling, in block: Block) -> [Float] {
    var maxima = [Float](repeating: 0, count: scaling.columns)
    for name in scaling.consumers {
      let weight = block[name].weight.dense()
      weight.withUnsafeElements { elements in
        for row in 0..<weight.rows {
          let row = elements + row * weight.columns
          for column in maxima.indices { maxima[column] = max(maxima[column], abs(row[column])) }
        }
      }
    }
    return scaling.channelMaxima(maxima)
  }
}

/// How much of the range of inputs moves into the weights, as recipes spell it: a number between 0 and 1, or `auto`.
public enum Strength: Sendable, Hashable, Codable, ExpressibleByFloatLiteral, SpelledOption {
  case fixed(Double)
  case auto

  public static var spelling: String { "a number between 0 and 1, or auto" }

  public init(floatLiteral value: Double) { self = .fixed(value) }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let value = try? container.decode(Double.self) {
      self = .fixed(value)
    } else if try container.decode(String.self) == "auto" {
      self = .auto
    } else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "a number between 0 and 1 or \"auto\" is needed")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .fixed(let value): try container.encode(value)
    case .auto: try container.encode("auto")
    }
  }
}

extension Pass where Self == SmoothQuant {
  /// SmoothQuant, for use in code: `Pipeline([.smoothQuant(), .gptq(bits: 8, groupSize: .channel)])`.
  public static func smoothQuant(strength: Strength = .auto) -> SmoothQuant {
    var pass = SmoothQuant()
    pass.strength = strength
    return pass
  }
}
