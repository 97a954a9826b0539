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
  func forEachMatch(in text: Bytes, ranges: [Range<Int>], _ body: (_ index: Int, _ match: Range<Int>) -> Void) {
    switch self {
    case .expression(let expression): expression.forEachMatch(in: text, ranges: ranges, body)
    case .words(let pattern):
      for (index, range) in ranges.enumerated() {
        pattern.forEachMatch(in: text.span.extracting(range)) {
          body(index, range.lowerBound + $0.lowerBound..<range.lowerBound + $0.upperBound)
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
          body(index, range.lowerBound + position..<range.lowerBound + position + literal.count)
          position += literal.count
        }
      }
    case .scalar(let matches):
      for (index, range) in ranges.enumerated() {
        var position = range.lowerBound
        while position < range.upperBound {
          let (scalar, width) = text.span.scalar(at: position)
          if matches(scalar) { body(index, position..<position + width) }
          position += width
        }
      }
    }
  }

  /// Like `forEachMatch`, with the gaps between the matches, so that the segments of a range cover it.
  func forEachSegment(
    in text: Bytes, ranges: [Range<Int>], _ body: (_ index: Int, _ segment: Range<Int>, _ isMatch: Bool) -> Void
  ) {
    var index = 0
    var end = ranges.first?.lowerBound ?? 0
    func finish(before other: Int) {
      while index < other {
        if end < ranges[index].upperBound { body(index, end..<ranges[index].upperBound, false) }
        index += 1
        if index < ranges.count { end = ranges[index].lowerBound }
      }
    }
    forEachMatch(in: text, ranges: ranges) { current, match in
      finish(before: current)
      if end < match.lowerBound { body(current, end..<match.lowerBound, false) }
      body(current, match, true)
      end = match.upperBound
    }
    finish(before: ranges.count)
  }

  /// The text with `content` in place of each match, and the match that begins it, if any.
  func replacing(in text: Bytes, with content: Bytes) -> (text: Bytes, leadingMatch: Range<Int>?) {
    var result: Bytes = []
    result.reserveCapacity(text.count)
    var leading: Range<Int>?
    var isAtStart = true
    forEachSegment(in: text, ranges: [0..<text.count]) { _, segment, isMatch in
      if isMatch { result += content } else { result += text[segment] }
      if isAtStart, isMatch { leading = segment }
      isAtStart = false
    }
    return (result, leading)
  }
}
