/// A token that is cut out of the text before the model sees it.
struct AddedToken: Sendable {
  let id: Int32
  let content: Bytes
  /// The content as it is looked for: normalised where the token is matched against normalised text.
  let pattern: Bytes
  let isSpecial: Bool
  let isNormalized: Bool
  fileprivate let isSingleWord: Bool
  fileprivate let stripsLeft: Bool
  fileprivate let stripsRight: Bool

  init(id: Int32, content: Bytes, isSpecial: Bool, isNormalized: Bool) {
    self.id = id
    self.content = content
    pattern = content
    self.isSpecial = isSpecial
    self.isNormalized = isNormalized
    isSingleWord = false
    stripsLeft = false
    stripsRight = false
  }

  init(_ field: Field, normalizers: [any Normalizer]) throws(TokenizerError) {
    id = try field.required("id", .identifier).identifier()
    isSpecial = try field.bool("special", else: false)
    isNormalized = try field.bool("normalized", else: !isSpecial)
    isSingleWord = try field.bool("single_word", else: false)
    stripsLeft = try field.bool("lstrip", else: false)
    stripsRight = try field.bool("rstrip", else: false)
    content = Bytes(try field.string("content").utf8)
    var text = NormalizedText(bytes: content, startsAtOrigin: true)
    if isNormalized { for normalizer in normalizers { try normalizer.normalize(&text) } }
    pattern = text.bytes
  }
}

/// Finds added tokens in a text, leftmost first and longest among those that begin at one place.
/// Source: `tokenizer/added_vocabulary.rs` of huggingface/tokenizers.
struct AddedTokenMatcher: Sendable {
  enum Segment: Equatable {
    case token(Int32)
    case text(Range<Int>)
  }

  private let tokens: [AddedToken]
  /// Positions in `tokens`; of equal texts the first counts.
  private let trie: PieceTrie

  init(_ tokens: [AddedToken]) {
    self.tokens = tokens.filter { !$0.pattern.isEmpty }
    trie = PieceTrie(self.tokens.enumerated().reversed().map { ($1.pattern, Int32($0)) })
  }

  /// The text as tokens and what lies between them.
  func segments(of text: Bytes) -> [Segment] {
    if tokens.isEmpty { return text.isEmpty ? [] : [.text(0..<text.count)] }
    var segments: [Segment] = []
    var end = 0
    var position = 0
    while position < text.count {
      guard let found = trie.longestPrefix(of: text.span, at: position) else {
        position += 1
        continue
      }
      let token = tokens[Int(found.value)]
      var range = position..<position + token.pattern.count
      position = range.upperBound
      guard !token.isSingleWord || standsAlone(range, in: text.span) else { continue }
      if token.stripsLeft {
        let start = max(text.span.startOfWhitespace(to: range.lowerBound), end)
        range = min(start, range.upperBound)..<range.upperBound
      }
      if token.stripsRight { range = range.lowerBound..<text.span.endOfWhitespace(from: range.upperBound) }
      if end < range.lowerBound { segments.append(.text(end..<range.lowerBound)) }
      segments.append(.token(token.id))
      // White space that this match took is still searched, and a token of white space in it ends the taking, as in the reference.
      end = range.upperBound
    }
    if end < text.count { segments.append(.text(end..<text.count)) }
    return segments
  }

  private func standsAlone(_ range: Range<Int>, in text: Span<UInt8>) -> Bool {
    (range.lowerBound == 0 || !text.scalar(before: range.lowerBound).scalar.isWord)
      && (range.upperBound == text.count || !text.scalar(at: range.upperBound).scalar.isWord)
  }
}
