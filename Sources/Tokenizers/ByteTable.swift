/// Byte strings and the number that each stands for: a vocabulary, or the pieces already encoded.
///
/// Open addressing over one arena: a dictionary keyed by arrays would cost an allocation per token to build and one per look-up.
struct ByteTable: Sendable {
  private struct Entry {
    let start: Int
    let count: Int
    var value: Int32
  }

  private var arena: Bytes = []
  private var entries: [Entry] = []
  /// Upper half of the hash and, below it, one more than the number of the entry; zero is free.
  private var slots: [UInt64]

  init(minimumCapacity: Int = 0) {
    var size = 64
    while size < 2 * minimumCapacity { size *= 2 }
    slots = Array(repeating: 0, count: size)
  }

  var count: Int { entries.count }

  func value(of key: Span<UInt8>) -> Int32? {
    guard let entry = entry(of: key, hash: Self.hash(key)) else { return nil }
    return entries[entry].value
  }

  /// Gives `key` a value, in place of an earlier one.
  mutating func set(_ value: Int32, for key: Span<UInt8>) {
    let hash = Self.hash(key)
    if let entry = entry(of: key, hash: hash) {
      entries[entry].value = value
      return
    }
    if 2 * (entries.count + 1) > slots.count { grow() }
    entries.append(Entry(start: arena.count, count: key.count, value: value))
    for index in 0..<key.count { arena.append(key[index]) }
    Self.place(entries.count, hash: hash, in: &slots)
  }

  private func entry(of key: Span<UInt8>, hash: UInt64) -> Int? {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] != 0 {
      if slots[slot] >> 32 == hash >> 32 {
        let number = Int(slots[slot] & 0xFFFF_FFFF) - 1
        let entry = entries[number]
        if entry.count == key.count, arena.span.extracting(entry.start..<entry.start + entry.count).equals(key) { return number }
      }
      slot = (slot + 1) & mask
    }
    return nil
  }

  private mutating func grow() {
    var larger = Array(repeating: UInt64(0), count: 2 * slots.count)
    for (index, entry) in entries.enumerated() {
      let key = arena.span.extracting(entry.start..<entry.start + entry.count)
      Self.place(index + 1, hash: Self.hash(key), in: &larger)
    }
    slots = larger
  }

  private static func place(_ number: Int, hash: UInt64, in slots: inout [UInt64]) {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] != 0 { slot = (slot + 1) & mask }
    slots[slot] = (hash & 0xFFFF_FFFF_0000_0000) | UInt64(number)
  }

  private static func hash(_ key: Span<UInt8>) -> UInt64 {
    var hash = UInt64(key.count) &* 0x9E37_79B9_7F4A_7C15
    func mix(_ word: UInt64) {
      let product = (hash ^ word).multipliedFullWidth(by: 0xD6E8_FEB8_6659_FD93)
      hash = product.high ^ product.low &+ 0x9E37_79B9_7F4A_7C15
    }
    let bytes = key.bytes
    var offset = 0
    while offset + 8 <= bytes.byteCount {
      mix(bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
      offset += 8
    }
    var rest: UInt64 = 0
    for index in offset..<bytes.byteCount { rest = rest << 8 | UInt64(key[index]) }
    mix(rest)
    return hash
  }
}
