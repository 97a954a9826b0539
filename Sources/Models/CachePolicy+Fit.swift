internal import Tensors

extension CachePolicy {
  /// Why no attention of this shape can be cached so; `nil` where it can.
  package func misfit(in attention: AttentionDescription) -> String? {
    if let obstacle = attention.cacheObstacle { return obstacle }
    for (name, numbers) in [("keys", key), ("values", value)] {
      guard let numbers else { continue }
      switch numbers.grid {
      case .integer where !(1...8).contains(numbers.bits): return "\(name) of \(numbers.bits) bits: 1 to 8 are possible"
      case .float where numbers.bits != 8: return "floating-point \(name) of \(numbers.bits) bits: E4M3 has 8"
      default: break
      }
      guard numbers.groupSize > 0 else { return "groups of \(numbers.groupSize) \(name)" }
      if numbers.axis == .token, attention.headSize % numbers.groupSize != 0 {
        return "groups of \(numbers.groupSize) \(name) do not divide heads of \(attention.headSize)"
      }
      if numbers.axis == .channel, eviction != nil {
        return "\(name) that share scales along time cannot be given up one by one; quantize them by token"
      }
    }
    guard residual >= 0 else { return "a residual of \(residual) tokens" }
    if isRotated, Hadamard(order: attention.headSize) == nil {
      return "heads of \(attention.headSize) have no known Hadamard matrix to be rotated by"
    }
    guard let eviction else { return nil }
    if attention.slopes != nil { return "scores fall with every token between a query and a key, so that none can be given up" }
    guard eviction.sinks >= 0, eviction.recent >= 0, eviction.budget > 0, eviction.sinks + eviction.recent <= eviction.budget else {
      return "a budget of \(eviction.budget) tokens has no room for \(eviction.sinks) sinks and the newest \(eviction.recent)"
    }
    let isPlacedOtherwise = attention.normalizesRotated || attention.queryScale != nil
    if isPlacedOtherwise, eviction.positions == .consecutive || eviction.method == .expectedAttention {
      let what = attention.queryScale == nil ? "norms behind the rotation" : "queries that grow along the sequence"
      return "\(what) are not foreseen where keys are held without positions or queries are expected"
    }
    if eviction.positions == .consecutive {
      if isRotated { return "keys held without positions cannot be rotated by a Hadamard matrix, which comes after the positions" }
      if eviction.method == .snapkv || eviction.method == .expectedAttention {
        return "\(eviction.method.rawValue) needs keys with their original positions"
      }
    }
    return nil
  }
}
