/// Random numbers keyed by a place, not by the time they are drawn: the same key gives the same sequence whatever ran before.
///
/// SplitMix64 (Steele, Lea and Flood 2014) seeded by an FNV-1a hash of the key.
public struct KeyedRandomness: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64, key: String...) {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325 ^ seed
    for part in key {
      for byte in part.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
      hash = (hash ^ 0xFF) &* 0x100_0000_01B3
    }
    state = hash
  }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
