public import Models
public import Passes
import Tensors

/// Chooses how the key-value cache is kept: as which numbers, and which tokens.
///
/// | scheme | keys and values |
/// |---|---|
/// | `fp8`, `int8` | 8 bits by fixed scales, calibrated per block: amax / 448 and amax / 127.5, rounded to the checkpoint's type. Keys are taken after the rotary embedding, as they are cached. Stored where vLLM reads them. |
/// | `fp8_dynamic` | E4M3 by scales of every token and head |
/// | `kivi` | integers with a low end: keys by channel in groups of tokens, values by token in groups of channels (KIVI, Liu et al. 2024) |
/// | `int` | integers with a low end, both by token |
/// | `rotated` | the same after a Hadamard rotation of every head (QuaRot, Ashkboos et al. 2024) |
/// | `none` | as they are |
///
/// All but the fixed scales need no data and are described in `kv_cache.json` beside the weights. Deviation from KIVI: at least `residual`
/// tokens stay unquantized, keys up to a group more; its own code quantizes all keys whenever `residual` of them have gathered.
public struct CacheCompression: BlockPass {
  public static let name = "kv_cache"
  public static let summary = "how the key-value cache is stored, and which tokens it keeps"

  public enum Scheme: String, Sendable, Codable, CaseIterable {
    case fp8, int8
    case fp8Dynamic = "fp8_dynamic"
    case kivi, int, rotated, none
  }

  /// Options of an eviction; what is left out follows from the method.
  public struct Eviction: Sendable, Codable, Equatable {
    public enum Method: String, Sendable, Codable, CaseIterable {
      case none, streaming, h2o, snapkv, tova
      case expectedAttention = "expected_attention"
    }

    public var method = Method.none
    /// Tokens kept per key-value head.
    public var budget = 256
    /// The first tokens, kept in any case: 4 for `streaming` and `expected_attention`, otherwise 0.
    public var sinks: Int?
    /// The newest tokens, kept in any case: half of the budget for `h2o`, the observed window for `snapkv` (64), 1 for `tova`.
    public var recent: Int?
    public var positions = CacheEviction.Positions.original

    public init() {}

    var policy: CacheEviction? {
      guard let method = CacheEviction.Method(rawValue: method.rawValue) else { return nil }
      let sinks = sinks ?? (method == .streaming || method == .expectedAttention ? min(4, budget / 2) : 0)
      let usual =
        switch method {
        case .streaming: budget - sinks
        case .h2o: budget / 2
        case .snapkv: min(64, budget / 2)
        case .tova: 1
        case .expectedAttention: 0
        }
      return CacheEviction(method: method, budget: budget, sinks: sinks, recent: recent ?? usual, positions: positions)
    }
  }

  public var scheme = Scheme.fp8
  /// Of integers; `keyBits` and `valueBits` where the two differ.
  public var bits = 4
  public var keyBits: Int?
  public var valueBits: Int?
  /// Numbers that share a scale; at most a head where it runs along channels.
  public var groupSize = 32
  /// The newest tokens stay unquantized.
  public var residual = 128
  public var eviction = Eviction()

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case scheme, bits, keyBits = "key_bits", valueBits = "value_bits", groupSize = "group_size", residual, eviction
  }

  private var isFixed: Bool { scheme == .fp8 || scheme == .int8 }
  public var usesCalibration: Bool { isFixed }
  public var fixesCacheScales: Bool { isFixed }
  public var acceptsFactors: Bool { true }

  /// - Throws: `InvalidOption` where another policy would take this one's place.
  public func validate(before following: [any Pass]) throws(InvalidOption) {
    guard !following.contains(where: { $0 is CacheCompression }) else {
      throw InvalidOption(
        "scheme", "another \(Self.name) follows and takes its place; a cache is kept in one way, so leave one of them out")
    }
  }

  public func validate() throws(InvalidOption) {
    for (name, bits) in [("bits", bits), ("key_bits", keyBits ?? bits), ("value_bits", valueBits ?? bits)] {
      guard (1...8).contains(bits) else { throw InvalidOption(name, "1 to 8 bits are possible") }
    }
    guard groupSize > 0 else { throw InvalidOption("group_size", "a positive number is needed") }
    guard residual >= 0 else { throw InvalidOption("residual", "a number of tokens is needed") }
    if scheme == .none, eviction.method == .none { throw InvalidOption("scheme", "none without an eviction does nothing") }
    if scheme == .kivi, eviction.method != .none {
      throw InvalidOption(
        "eviction.method", "keys that share scales along time cannot be given up one by one; use the scheme int or rotated")
    }
    guard let policy = eviction.policy else { return }
    guard policy.budget > 0 else { throw InvalidOption("eviction.budget", "at least one token is needed") }
    guard policy.sinks >= 0, policy.recent >= 0, policy.sinks + policy.recent <= policy.budget else {
      throw InvalidOption(
        "eviction.budget", "\(policy.budget) tokens have no room for \(policy.sinks) sinks and the newest \(policy.recent)")
    }
    if policy.positions == .consecutive {
      guard [.streaming, .h2o, .tova].contains(policy.method) else {
        throw InvalidOption("eviction.positions", "\(policy.method.rawValue) needs keys with their original positions")
      }
      guard scheme != .rotated else {
        throw InvalidOption("eviction.positions", "keys without positions cannot be rotated by a Hadamard matrix, which comes after them")
      }
    }
  }

  /// - Throws: `InvalidOption` for a model that keeps no cache.
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    if let reason = description.cacheObstacle { throw InvalidOption("scheme", reason) }
    return description
  }

  /// The policy for heads of a size, fixed scales excepted.
  public func policy(headSize: Int) -> CachePolicy {
    func integers(_ bits: Int?, _ axis: CacheNumbers.Axis) -> CacheNumbers {
      CacheNumbers(bits: bits ?? self.bits, axis: axis, groupSize: axis == .channel ? groupSize : min(groupSize, headSize))
    }
    var policy = CachePolicy(eviction: eviction.policy)
    switch scheme {
    case .fp8, .int8, .none: break
    case .fp8Dynamic:
      policy.key = CacheNumbers(grid: .float, bits: 8, axis: .token, groupSize: headSize)
      policy.value = policy.key
    case .kivi, .int, .rotated:
      policy.key = integers(keyBits, scheme == .kivi ? .channel : .token)
      policy.value = integers(valueBits, .token)
      policy.residual = residual
      policy.isRotated = scheme == .rotated
    }
    return policy
  }

  /// The model with this cache, to be tried without writing a checkpoint.
  ///
  /// - Throws: `InvalidOption` for scales that have to be calibrated, and for what does not fit the model.
  package func applied(to model: Model) throws(InvalidOption) -> Model {
    if isFixed { throw InvalidOption("scheme", "\(scheme.rawValue) needs calibrated scales; run a recipe, or use fp8_dynamic") }
    for block in model.description.blocks {
      guard let heads = block.heads else { continue }
      if let misfit = block.misfit(of: policy(headSize: heads.size)) { throw InvalidOption("scheme", misfit) }
    }
    return model.changingBlocks { block in
      guard let heads = block.description.heads else { return }
      block.cachePolicy = policy(headSize: heads.size)
      block.cache = nil
    }
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    guard let heads = block.description.heads else {
      return context.recordBlock(block, [:], scheme: "no keys and values: left as it is")
    }
    let policy = policy(headSize: heads.size)
    if let misfit = block.description.misfit(of: policy) { throw InvalidOption("scheme", misfit) }
    block.cachePolicy = policy == CachePolicy() ? nil : policy
    block.cache = nil
    var metrics = ["bits_per_key": policy.key?.bitsPerElement, "bits_per_value": policy.value?.bitsPerElement].compactMapValues { $0 }
    if let budget = policy.eviction?.budget { metrics["budget"] = Double(budget) }
    guard isFixed else { return context.recordBlock(block, metrics, scheme: "cache: \(policy)") }
    let range = try context.cacheRange(of: block)
    let grid: QuantizationScheme.Grid = scheme == .fp8 ? .float : .integer
    let type = block.norms.storageType
    func stored(_ amax: Float) -> CacheScale {
      CacheScale(grid: grid, scale: type.rounded(CacheScale(grid: grid, amax: amax).scale))
    }
    let cache = CacheQuantization(key: stored(range.key), value: stored(range.value))
    block.cache = cache
    metrics["bits_per_key"] = 8
    metrics["bits_per_value"] = 8
    metrics["key_maximum"] = Double(range.key)
    metrics["value_maximum"] = Double(range.value)
    metrics["key_scale"] = Double(cache.key.scale)
    metrics["value_scale"] = Double(cache.value.scale)
    context.recordBlock(
      block, metrics, scheme: "\(scheme.rawValue) cache\(policy.eviction.map { ", \($0)" } ?? "")")
  }
}
