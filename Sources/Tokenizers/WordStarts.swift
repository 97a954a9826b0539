/// Cuts before every `▁` that no token continues into, so that words are encoded once and not again at each return.
///
/// Not part of any file: merging never joins what no token joins, so the tokens are the same with and without.
struct WordStarts: PreTokenizer {
  private static let mark: Bytes = [0xE2, 0x96, 0x81]
  /// The code points that stand before a `▁` within some token.
  private let joined: Set<UInt32>

  /// `nil` for a vocabulary that does not mark spaces, or joins them with too much.
  init?(_ vocabulary: Vocabulary) {
    guard vocabulary.id(of: Self.mark.span) != nil else { return nil }
    var joined: Set<UInt32> = []
    for token in vocabulary.allTokens {
      let text = token.span
      var position = 1
      while position + 3 <= text.count {
        if text[position] == 0xE2, text.starts(with: Self.mark, at: position) {
          joined.insert(text.scalar(before: position).scalar.value)
          guard joined.count <= 64 else { return nil }
        }
        position += 1
      }
    }
    self.joined = joined
  }

  func split(_ pieces: inout PieceList) {
    var result: [Range<Int>] = []
    result.reserveCapacity(pieces.text.count / 5 + pieces.ranges.count)
    let bytes = pieces.text
    let text = bytes.span
    for range in pieces.ranges {
      var start = range.lowerBound
      var position = start + 1
      while position + 3 <= range.upperBound {
        if text[position] == 0xE2, text.starts(with: Self.mark, at: position) {
          if !joined.contains(text.scalar(before: position).scalar.value) {
            result.append(start..<position)
            start = position
          }
          position += 3
        } else {
          position += 1
        }
      }
      result.append(start..<range.upperBound)
    }
    pieces.replaceRanges(result)
  }
}
