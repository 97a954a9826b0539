/// How the keys and values of a sequence are kept while a model reads or writes it: as which numbers, and which of them at all.
///
/// Fixed 8-bit scales, which runtimes find in the checkpoint, are `CacheQuantization`; they may stand beside a policy that only evicts.
public struct CachePolicy: Sendable, Hashable, Codable {
  /// `nil` for keys as they were computed.
  public var key: CacheNumbers?
  public var value: CacheNumbers?
  /// So many of the newest tokens stay as they were computed; keys that share scales along time up to a group more.
  public var residual: Int
  /// Whether every head is multiplied by a Hadamard matrix before it is stored (QuaRot, Ashkboos et al. 2024).
  public var isRotated: Bool
  public var eviction: CacheEviction?

  public init(
    key: CacheNumbers? = nil, value: CacheNumbers? = nil, residual: Int = 0, isRotated: Bool = false, eviction: CacheEviction? = nil
  ) {
    self.key = key
    self.value = value
    self.residual = residual
    self.isRotated = isRotated
    self.eviction = eviction
  }
}

/// The numbers that keys or values are stored as, with scales measured from what is stored.
///
/// Integers have the smallest number of their group beside the scale, both as binary16: x̂ = scale · code + low, scale = (high − low) /
/// (2^bits − 1). E4M3 has amax / 448 in single precision.
public struct CacheNumbers: Sendable, Hashable, Codable {
  /// What a group runs along.
  public enum Axis: String, Sendable, Codable, CaseIterable {
    /// The tokens: one scale for so many values of one channel (KIVI's keys).
    case channel
    /// The channels: one scale for so many values of one token in one head.
    case token
  }

  public var grid: QuantizationScheme.Grid
  public var bits: Int
  public var axis: Axis
  /// Numbers that share a scale.
  public var groupSize: Int

  public init(grid: QuantizationScheme.Grid = .integer, bits: Int, axis: Axis, groupSize: Int) {
    self.grid = grid
    self.bits = bits
    self.axis = axis
    self.groupSize = groupSize
  }

  /// Bits that a group takes beside its codes.
  public var bitsPerGroup: Int { 32 }
  /// Bits of one element, its share of the scales included.
  public var bitsPerElement: Double { Double(bits) + Double(bitsPerGroup) / Double(groupSize) }
}

extension CacheNumbers: CustomStringConvertible {
  /// In words, such as `int4 channel g32`.
  public var description: String { "\(grid == .integer ? "int" : "fp")\(bits) \(axis.rawValue) g\(groupSize)" }
}

/// Which tokens a cache of bounded size gives up.
public struct CacheEviction: Sendable, Hashable, Codable {
  public enum Method: String, Sendable, Codable, CaseIterable {
    /// The first tokens and the newest (StreamingLLM, Xiao et al. 2023).
    case streaming
    /// Those that received most attention on average (H2O, Zhang et al. 2023).
    case h2o
    /// Those that the newest queries look at, smoothed over neighbours (SnapKV, Li et al. 2024).
    case snapkv
    /// Those that the last query looks at, over all heads (TOVA, Oren et al. 2024).
    case tova
    /// Those that future queries are expected to look at, by the size of their values (expected attention, Devoto et al. 2025).
    case expectedAttention = "expected_attention"
  }

  /// Where the rotary embedding puts what is kept.
  public enum Positions: String, Sendable, Codable, CaseIterable {
    /// Where it stood in the sequence.
    case original
    /// Without the gaps: keys are rotated by their places in the cache, and so are the queries.
    case consecutive
  }

  public var method: Method
  /// Tokens kept per key-value head.
  public var budget: Int
  /// Of these, the first of the sequence and the newest are kept whatever they score.
  public var sinks: Int
  public var recent: Int
  public var positions: Positions

  public init(method: Method, budget: Int, sinks: Int, recent: Int, positions: Positions = .original) {
    self.method = method
    self.budget = budget
    self.sinks = sinks
    self.recent = recent
    self.positions = positions
  }
}

extension CacheEviction: CustomStringConvertible {
  /// In words, such as `h2o 256`.
  public var description: String { "\(method.rawValue) \(budget)\(positions == .original ? "" : " consecutive")" }
}

extension CachePolicy: CustomStringConvertible {
  /// In words, such as `keys int4 channel g32, values int4 token g32, newest 128 as they are`.
  public var description: String {
    var parts: [String] = []
    if let key { parts.append("keys \(key)") }
    if let value { parts.append("values \(value)") }
    if isRotated { parts.append("rotated") }
    if residual > 0, key != nil || value != nil { parts.append("newest \(residual) as they are") }
    if let eviction { parts.append("\(eviction)") }
    return parts.isEmpty ? "as they are" : parts.joined(separator: ", ")
  }
}
