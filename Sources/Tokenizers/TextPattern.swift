/// What `Split`, `Replace` and `Digits` look for.
enum TextPattern: Sendable {
  /// A text that is not empty.
  case literal(Bytes)
  case expression(RegularExpression)
  /// An expression that is run without the engine.
  case words(WordPattern)
  /// One code point of a class of its own.
  case scalar(@Sendable (Unicode.Scalar) -> Bool)

  /// Reads `{"String": …}` or `{"Regex": …}`.
  init(_ field: Field) throws(TokenizerError) {
    if let expression = field["Regex"] {
      let text = try expression.string()
      if let words = WordPattern(text) {
        self = .words(words)
      } else {
        self = .expression(try RegularExpression(text, field: expression.path))
      }
    } else if let literal = field["String"] {
      let text = Bytes(try literal.string().utf8)
      guard !text.isEmpty else { throw .invalidField(literal.path, expected: .filledString) }
      self = .literal(text)
    } else {
      throw .invalidField(field.path, expected: .pattern)
    }
  }

  /// Calls `body` with each match from left to right in each of `ranges`, and the position of that range in the list.
  ///
  /// - Throws: `TokenizerError.endlessPattern`, and what `body` throws.
  func forEachMatch(
    in text: Bytes, ranges: [Range<Int>], _ body: (_ index: Int, _ match: Range<Int>) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    switch self {
    case .expression(let expression): try expression.forEachMatch(in: text, ranges: ranges, body)
    case .words(let pattern):
      for (index, range) in ranges.enumerated() {
        try pattern.forEachMatch(in: text.span.extracting(range)) { match throws(TokenizerError) in
          try body(index, range.lowerBound + match.lowerBound..<range.lowerBound + match.upperBound)
        }
      }
    case .literal(let literal):
      for (index, range) in ranges.enumerated() {
        let piece = text.span.extracting(range)
        var position = 0
        while position + literal.count <= piece.count {
          guard piece[position] == literal[0], piece.starts(with: literal, at: position) else {
            position += 1
            continue
          }
          try body(index, range.lowerBound + position..<range.lowerBound + position + literal.count)
          position += literal.count
        }
      }
    case .scalar(let matches):
      for (index, range) in ranges.enumerated() {
        var position = range.lowerBound
        while position < range.upperBound {
          let (scalar, width) = text.span.scalar(at: position)
          if matches(scalar) { try body(index, position..<position + width) }
          position += width
        }
      }
    }
  }

  /// Like `forEachMatch`, with the gaps between the matches, so that the segments of a range cover it.
  func forEachSegment(
    in text: Bytes, ranges: [Range<Int>], _ body: (_ index: Int, _ segment: Range<Int>, _ isMatch: Bool) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    var index = 0
    var end = ranges.first?.lowerBound ?? 0
    func finish(before other: Int) throws(TokenizerError) {
      while index < other {
        if end < ranges[index].upperBound { try body(index, end..<ranges[index].upperBound, false) }
        index += 1
        if index < ranges.count { end = ranges[index].lowerBound }
      }
    }
    try forEachMatch(in: text, ranges: ranges) { current, match throws(TokenizerError) in
      try finish(before: current)
      if end < match.lowerBound { try body(current, end..<match.lowerBound, false) }
      try body(current, match, true)
      end = match.upperBound
    }
    try finish(before: ranges.count)
  }

  /// The text with `content` in place of each match, and the match that begins it, if any.
  ///
  /// - Throws: `TokenizerError.endlessPattern`; `endlessText` for a result of more than `limit` bytes.
  func replacing(in text: Bytes, with content: Bytes, limit: Int) throws(TokenizerError) -> (text: Bytes, leadingMatch: Range<Int>?) {
    var result: Bytes = []
    result.reserveCapacity(text.count)
    var leading: Range<Int>?
    var isAtStart = true
    try forEachSegment(in: text, ranges: [0..<text.count]) { _, segment, isMatch throws(TokenizerError) in
      if isMatch { result += content } else { result += text[segment] }
      guard result.count <= limit else { throw .endlessText(limit: limit) }
      if isAtStart, isMatch { leading = segment }
      isAtStart = false
    }
    return (result, leading)
  }
}
