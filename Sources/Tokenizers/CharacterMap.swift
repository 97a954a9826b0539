/// SentencePiece's precompiled character map: strings of the text and what replaces them.
///
/// Layout: the size in bytes of a double-array trie, the trie in units of 32 bits, then the replacements, each ended by a zero byte. Source:
/// `normalizer.cc` of google/sentencepiece and the unit layout of Darts-clone. Every step is checked against the array's bounds.
struct CharacterMap: Sendable {
  private let units: [UInt32]
  private let replacements: Bytes

  /// `nil` for a blob whose parts do not fit it.
  init?(_ blob: Bytes) {
    func word(_ offset: Int) -> UInt32 { (0..<4).reversed().reduce(0) { $0 << 8 | UInt32(blob[offset + $1]) } }
    guard blob.count >= 4, case let size = Int(word(0)), size % 4 == 0, size > 0, size <= blob.count - 4 else { return nil }
    units = (0..<size / 4).map { word(4 + 4 * $0) }
    replacements = Bytes(blob[(4 + size)...])
  }

  /// What the strings that begin at `position` become, shortest first.
  private func forEachPrefix(of text: Span<UInt8>, at position: Int, _ body: (_ length: Int, _ replacement: Int) -> Bool) {
    func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 0x200) >> 6) }
    var node = offset(units[0])
    for index in position..<text.count {
      guard text[index] != 0 else { return }
      node ^= Int(text[index])
      guard node < units.count, case let unit = units[node], unit & 0x8000_00FF == UInt32(text[index]) else { return }
      node ^= offset(unit)
      guard node < units.count else { return }
      if unit >> 8 & 1 == 1, !body(index + 1 - position, Int(units[node] & 0x7FFF_FFFF)) { return }
    }
  }

  private func replacement(_ start: Int) -> Bytes? {
    guard start < replacements.count, let end = replacements[start...].firstIndex(of: 0) else { return nil }
    return Bytes(replacements[start..<end])
  }

  /// The longest string of the map at `position`, and what it becomes: SentencePiece's rule.
  func longest(of text: Span<UInt8>, at position: Int) -> (length: Int, replacement: Bytes)? {
    var found: (Int, Int)?
    forEachPrefix(of: text, at: position) { length, start in
      found = (length, start)
      return true
    }
    return found.flatMap { length, start in replacement(start).map { (length, $0) } }
  }

  /// What the shortest string of the map at the start of `text` becomes: the rule of huggingface/tokenizers, for all of `text`.
  func first(of text: Span<UInt8>) -> Bytes? {
    var found: Int?
    forEachPrefix(of: text, at: 0) { _, start in
      found = start
      return false
    }
    return found.flatMap { replacement($0) }
  }
}
