/// What becomes of the text that a pattern matches.
enum SplitBehavior: String, Sendable {
  case isolated = "Isolated"
  case removed = "Removed"
  case mergedWithPrevious = "MergedWithPrevious"
  case mergedWithNext = "MergedWithNext"
  case contiguous = "Contiguous"

  init(_ field: Field) throws(TokenizerError) {
    let name = try field.string()
    guard let behavior = SplitBehavior(rawValue: name) else { throw .unsupportedOption(field: field.path, value: name) }
    self = behavior
  }
}

struct Split: PreTokenizer {
  let pattern: TextPattern
  let behavior: SplitBehavior
  /// Whether matches and the gaps between them change places.
  let isInverted: Bool

  static let onWhitespace = Split(pattern: .scalar(\.properties.isWhitespace), behavior: .removed, isInverted: false)

  func split(_ pieces: inout PieceList) throws(TokenizerError) {
    var result: [Range<Int>] = []
    result.reserveCapacity(pieces.text.count / 4)
    var last: (piece: Int, isMatch: Bool)?
    try pattern.forEachSegment(in: pieces.text, ranges: pieces.ranges) { piece, segment, matches throws(TokenizerError) in
      let isMatch = matches != isInverted
      let joinsLast =
        if let last, last.piece == piece {
          switch behavior {
          case .isolated, .removed: false
          case .mergedWithPrevious: isMatch && !last.isMatch
          case .mergedWithNext: !isMatch && last.isMatch
          case .contiguous: isMatch == last.isMatch
          }
        } else {
          false
        }
      if joinsLast {
        result[result.count - 1] = result[result.count - 1].lowerBound..<segment.upperBound
      } else if !(isMatch && behavior == .removed) {
        result.append(segment)
      }
      last = (piece, isMatch)
    }
    result.removeAll { $0.isEmpty }
    pieces.replaceRanges(result)
  }
}
