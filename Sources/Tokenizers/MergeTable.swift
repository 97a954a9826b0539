/// What two neighbouring tokens become, and how early.
struct MergeTable: Sendable {
  struct Merge: Sendable {
    let rank: UInt32
    let result: Int32
  }

  /// No token has this id, so no pair has this key.
  private static let free = UInt64.max
  private var keys: [UInt64]
  private var merges: [Merge]

  init(minimumCapacity: Int) {
    var size = 64
    while size < 2 * (minimumCapacity + 1) { size *= 2 }
    keys = Array(repeating: Self.free, count: size)
    merges = Array(repeating: Merge(rank: 0, result: 0), count: size)
  }

  func merge(_ left: Int32, _ right: Int32) -> Merge? {
    let slot = slot(of: Self.key(left, right))
    return keys[slot] == Self.free ? nil : merges[slot]
  }

  /// Adds a merge within the capacity the table was made for; a repeated pair keeps its last rank, as in the reference.
  mutating func set(_ merge: Merge, _ left: Int32, _ right: Int32) {
    let key = Self.key(left, right)
    let slot = slot(of: key)
    keys[slot] = key
    merges[slot] = merge
  }

  private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  private func slot(of key: UInt64) -> Int {
    let mask = keys.count - 1
    let hash = key &* 0x9E37_79B9_7F4A_7C15
    var slot = Int(truncatingIfNeeded: hash >> 32) & mask
    while keys[slot] != key, keys[slot] != Self.free { slot = (slot + 1) & mask }
    return slot
  }
}
