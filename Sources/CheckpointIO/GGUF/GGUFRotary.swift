internal import Foundation
internal import StrictJSON
package import Tensors

/// What a GGUF file says of its rotary frequencies, and how `rope_scaling` of `config.json` says the same.
package struct GGUFRotary {
  let architecture: String
  let metadata: GGUFMetadata
  /// Dimensions of a head that are rotated.
  let rotated: Int
  let base: Double
  /// Positions the model was made for.
  let positions: Int
  /// Whether llama.cpp reads more of YaRN than its factor in this architecture.
  let readsYarn: Bool

  private func key(_ name: String) -> String { "\(architecture).rope.\(name)" }

  private func refusal(_ name: String, _ value: String, _ reason: String) -> CheckpointError {
    .unsupportedOption(option: key(name), value: value, reason: reason)
  }

  /// `rope_scaling`; `nil` for frequencies as they are.
  ///
  /// - Throws: `CheckpointError` for scalings that are not read, and for factors that are none.
  func scaling(_ factors: Factors) throws(CheckpointError) -> JSON? {
    let type = metadata[key("scaling.type")]?.string ?? "linear"
    if let short = factors.short, let long = factors.long {
      return longrope(short: try divisors(short, Factors.shortName), long: try divisors(long, Factors.longName))
    }
    if type == "yarn" {
      guard factors.whole == nil else { throw refusal("scaling.type", type, "it is not read beside factors of frequencies") }
      return try yarn()
    }
    let factor = try linearFactor(type)
    guard let whole = factors.whole else { return factor == 1 ? nil : Self.linear(factor) }
    let values = try divisors(whole, Factors.wholeName)
    // Both divide.
    let divisors = factor == 1 ? values : values.map { Float(Double($0) * factor) }
    if Set(divisors).count == 1 { return divisors[0] == 1 ? nil : Self.linear(Double(divisors[0])) }
    let precision: Float = whole.dtype == .float16 ? 1e-3 : whole.dtype == .bfloat16 ? 8e-3 : 5e-6
    if let scaling = LlamaRopeScaling(factors: divisors, base: base, precision: precision) { return scaling.json }
    return explicit(divisors)
  }

  private func divisors(_ factors: Tensor, _ name: String) throws(CheckpointError) -> [Float] {
    guard factors.shape == [rotated / 2] else { throw .wrongShape(tensor: name, expected: [rotated / 2], found: factors.shape) }
    guard factors.dtype.isReadableAsFloat else {
      throw .unusableType(tensor: name, dtype: factors.dtype.rawValue, use: "factors of frequencies")
    }
    let values = factors.floats()
    guard values.allSatisfy({ $0.isFinite && $0 > 0 }) else {
      throw .unsupportedOption(option: name, value: "\(values)", reason: "they should be positive numbers")
    }
    return values
  }

  private func factor() throws(CheckpointError) -> Double {
    let factor = metadata[key("scaling.factor")]?.double ?? metadata[key("scale_linear")]?.double ?? 1
    guard factor.isFinite, factor >= 0 else { throw refusal("scaling.factor", "\(factor)", "a positive number is needed") }
    return factor == 0 ? 1 : factor
  }

  /// By what all frequencies are divided. A factor without a type is linear, as in llama.cpp, and so is the key of older files.
  private func linearFactor(_ type: String) throws(CheckpointError) -> Double {
    if let gain = metadata[key("scaling.attn_factor")]?.double, gain != 1 {
      throw refusal("scaling.attn_factor", "\(gain)", "only 1 is read")
    }
    guard ["none", "linear"].contains(type) else { throw refusal("scaling.type", type, "none, linear and yarn are read") }
    return type == "linear" ? try factor() : 1
  }

  private static func linear(_ factor: Double) -> JSON {
    .object([.init("rope_type", .string("linear")), .init("factor", .double(factor))])
  }

  /// YaRN, whose gain on cosines and sines llama.cpp computes from the factor and multiplies by `scaling.attn_factor`.
  private func yarn() throws(CheckpointError) -> JSON? {
    let factor = try factor()
    let original = metadata[key("scaling.original_context_length")]?.integer ?? positions
    var gain = Self.yarnGain(factor) * (metadata[key("scaling.attn_factor")]?.double ?? 1)
    if readsYarn, let scale = metadata[key("scaling.yarn_log_multiplier")]?.double, scale != 0 {
      gain /= Self.yarnGain(factor, scale: scale)
    }
    let (fast, slow) = readsYarn ? (number("scaling.yarn_beta_fast"), number("scaling.yarn_beta_slow")) : (nil, nil)
    return .object([
      .init("rope_type", .string("yarn")), .init("factor", .double(factor)), .init("original_max_position_embeddings", .integer(original)),
      .init("beta_fast", fast ?? .double(32)), .init("beta_slow", slow ?? .double(1)),
      .init("attention_factor", .number("\(Float(gain))")),
    ])
  }

  /// What YaRN multiplies cosines and sines by unless told otherwise (Peng et al. 2023, equation 22).
  package static func yarnGain(_ factor: Double, scale: Double = 1) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }

  /// The shortest decimal that is the single-precision number of a key.
  private func number(_ name: String) -> JSON? { (metadata[key(name)]?.double).map { .number("\(Float($0))") } }

  /// Divisors that follow from no known rule, one by one: LongRoPE says that, with the same ones for short and long sequences.
  private func explicit(_ divisors: [Float]) -> JSON {
    longrope(short: divisors, long: divisors, attention: .double(1), original: positions)
  }

  private func longrope(short: [Float], long: [Float]) -> JSON {
    longrope(
      short: short, long: long, attention: number("scaling.attn_factor") ?? .double(1),
      original: metadata[key("scaling.original_context_length")]?.integer ?? positions)
  }

  private func longrope(short: [Float], long: [Float], attention: JSON, original: Int) -> JSON {
    .object([
      .init("rope_type", .string("longrope")), .init("short_factor", .array(short.map { .number("\($0)") })),
      .init("long_factor", .array(long.map { .number("\($0)") })), .init("attention_factor", attention),
      .init("original_max_position_embeddings", .integer(original)),
    ])
  }
}

extension GGUFRotary {
  /// What the rotary frequencies of a model are divided by, where its file says so in tensors, [half of what is rotated].
  package struct Factors: Sendable {
    /// In sequences of any length.
    package var whole: Tensor?
    /// In contexts that are no longer than the model was first trained for, and in longer ones.
    package var short, long: Tensor?

    package static let wholeName = "rope_freqs.weight"
    package static let shortName = "rope_factors_short.weight"
    package static let longName = "rope_factors_long.weight"
    static let names: Set = [wholeName, shortName, longName]

    package init(whole: Tensor? = nil, short: Tensor? = nil, long: Tensor? = nil) {
      (self.whole, self.short, self.long) = (whole, short, long)
    }

    init(in file: GGUFFile) throws(CheckpointError) {
      func tensor(_ name: String) throws(CheckpointError) -> Tensor? {
        try file.info(name).map { _ throws(CheckpointError) in try file.tensor(name) }
      }
      self.init(whole: try tensor(Self.wholeName), short: try tensor(Self.shortName), long: try tensor(Self.longName))
    }

    /// By the names of the file.
    package var named: [(name: String, tensor: Tensor)] {
      [(Self.wholeName, whole), (Self.shortName, short), (Self.longName, long)].compactMap { name, tensor in tensor.map { (name, $0) } }
    }
  }
}

/// How Llama 3.1 and later stretch their rotary frequencies: what GGUF files store as one factor per pair of dimensions.
public struct LlamaRopeScaling: Sendable, Equatable {
  public var factor, low, high, originalPositions: Double

  public init(factor: Double, low: Double, high: Double, originalPositions: Double) {
    self.factor = factor
    self.low = low
    self.high = high
    self.originalPositions = originalPositions
  }

  /// Finds parameters with the published `low` and `high`, 1 and 4, that give these factors; `nil` where none do.
  ///
  /// - Parameter precision: relative, of the type that the factors were stored in.
  init?(factors: [Float], base: Double, precision: Float) {
    guard let index = factors.indices.max(by: { factors[$0] < factors[$1] }) else { return nil }
    let (low, high, largest) = (1.0, 4.0, Double(factors[index]))
    func wavelength(_ pair: Int) -> Double { Self.wavelength(pair, headSize: 2 * factors.count, base: base) }
    for originalPositions in [8192, 4096, 16384, 32768] + Self.lengths(factors, wavelength) {
      // Short heads have no pair that is stretched all the way: the whole factor follows from how far the longest is.
      let blend = max(0, (originalPositions / wavelength(index) - low) / (high - low))
      let factor = ((1 - blend) / (1 / largest - blend) * 1000).rounded() / 1000
      guard factor.isFinite, factor >= 1 else { continue }
      let candidate = LlamaRopeScaling(factor: factor, low: low, high: high, originalPositions: originalPositions)
      let found = candidate.factors(headSize: 2 * factors.count, base: base)
      guard zip(found, factors).allSatisfy({ abs($0 - $1) <= precision * abs($1) }) else { continue }
      self = candidate
      return
    }
    return nil
  }

  /// Original lengths that some of the factors speak for.
  ///
  /// With u = 1 / factor, a blended pair of wavelength λ has 1/f = u + (1 − u)·(L/λ − 1)/3: linear in 1/λ. Where a pair is stretched all the
  /// way its factor is the whole one and any blended pair gives L; else two blended pairs give both.
  private static func lengths(_ factors: [Float], _ wavelength: (Int) -> Double) -> [Double] {
    let largest = factors.max() ?? 1
    let blended = factors.indices.filter { factors[$0] > 1 && factors[$0] < largest }
    var lengths: [Double] = []
    if let whole = factors.firstIndex(of: largest), largest > 1 {
      let u = 1 / Double(largest)
      lengths += blended.map { wavelength($0) * (3 * (1 / Double(factors[$0]) - u) / (1 - u) + 1) }
      if blended.isEmpty, whole > 0, case let bounds = (4 * wavelength(whole - 1), wavelength(whole)), bounds.0 < bounds.1 {
        lengths.append((bounds.0 * bounds.1).squareRoot())
      }
    }
    let partial = factors.indices.filter { factors[$0] > 1 }
    if let first = partial.first, let last = partial.last, first != last {
      let (a, b) = (1 / wavelength(first), 1 / wavelength(last))
      let slope = (1 / Double(factors[first]) - 1 / Double(factors[last])) / (a - b)
      let u = (3 * (1 / Double(factors[first]) - slope * a) + 1) / 4
      lengths.append(3 * slope / (1 - u))
    }
    return lengths.filter { $0.isFinite && $0 >= 1 && $0 < 1e9 }.flatMap { [$0.rounded(), $0] }
  }

  private static func wavelength(_ pair: Int, headSize: Int, base: Double) -> Double {
    2 * Double.pi / pow(base, -2 * Double(pair) / Double(headSize))
  }

  /// What each pair's frequency is divided by.
  public func factors(headSize: Int, base: Double) -> [Float] {
    (0..<headSize / 2).map { i in
      let wavelength = Self.wavelength(i, headSize: headSize, base: base)
      if wavelength < originalPositions / high { return 1 }
      if wavelength > originalPositions / low { return Float(factor) }
      let blend = (originalPositions / wavelength - low) / (high - low)
      return Float(1 / ((1 - blend) / factor + blend))
    }
  }

  var json: JSON {
    .object([
      .init("rope_type", .string("llama3")), .init("factor", .double(factor)), .init("low_freq_factor", .double(low)),
      .init("high_freq_factor", .double(high)), .init("original_max_position_embeddings", .double(originalPositions)),
    ])
  }
}
