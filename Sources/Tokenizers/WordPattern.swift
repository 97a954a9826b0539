/// The regular expressions by which most byte-level tokenizers cut text, run without an engine: one step forward a code point.
///
/// Each of them matches every character of every text, so matches follow each other without gaps.
struct WordPattern: Sendable {
  enum Contractions: Sendable { case none, first, firstInAnyCase, afterWords }

  enum Words: Sendable {
    /// ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+`
    case spaced
    /// `[^\r\n\p{L}\p{N}]?\p{L}+`
    case prefixed
    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`, else with `+` first and `*` after.
    case cased
  }

  let contractions: Contractions
  let words: Words
  /// Numbers in one piece.
  let digits: Int
  /// Whether `/` stays with the punctuation before it, as line ends do.
  let keepsSlashes: Bool
  private let classes = CharacterClasses.shared

  static let gpt2 = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  static let llama3 = contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"# + end(#"\r\n"#)
  static let qwen2 = contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"# + end(#"\r\n"#)
  static let tekken = casedWords("") + #"|\p{N}"# + end(#"\r\n/"#)
  static let o200k = casedWords(contractions + "?") + #"|\p{N}{1,3}"# + end(#"\r\n/"#)

  private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

  private static func end(_ tail: String) -> String { #"| ?[^\s\p{L}\p{N}]+["# + tail + #"]*|\s*[\r\n]+|\s+(?!\S)|\s+"# }

  private static func casedWords(_ suffix: String) -> String {
    let (upper, lower) = (#"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#, #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#)
    return #"[^\r\n\p{L}\p{N}]?\#(upper)*\#(lower)+\#(suffix)|[^\r\n\p{L}\p{N}]?\#(upper)+\#(lower)*\#(suffix)"#
  }

  private init(_ contractions: Contractions, _ words: Words, digits: Int, keepsSlashes: Bool = false) {
    self.contractions = contractions
    self.words = words
    self.digits = digits
    self.keepsSlashes = keepsSlashes
  }

  /// The same as an expression, where it is one of these.
  init?(_ expression: String) {
    switch expression {
    case Self.gpt2: self.init(.first, .spaced, digits: .max)
    case Self.llama3: self.init(.firstInAnyCase, .prefixed, digits: 3)
    case Self.qwen2: self.init(.firstInAnyCase, .prefixed, digits: 1)
    case Self.tekken: self.init(.none, .cased, digits: 1, keepsSlashes: true)
    case Self.o200k: self.init(.afterWords, .cased, digits: 3, keepsSlashes: true)
    default: return nil
    }
  }

  func forEachMatch<Failure: Error>(in text: Span<UInt8>, _ body: (Range<Int>) throws(Failure) -> Void) throws(Failure) {
    var start = 0
    while start < text.count {
      let end = end(of: text, from: start)
      try body(start..<end)
      start = end
    }
  }

  /// Where the match that begins at `start` ends.
  private func end(of text: Span<UInt8>, from start: Int) -> Int {
    switch contractions {
    case .first: if let end = contraction(text, start, inAnyCase: false) { return end }
    case .firstInAnyCase: if let end = contraction(text, start, inAnyCase: true) { return end }
    case .none, .afterWords: break
    }
    let (first, width) = classes.look(text, start)
    let second = start + width
    let next = second < text.count ? classes.look(text, second).is : .space
    let word =
      switch words {
      case .spaced: endOfSpaced(text, start, first, next)
      case .prefixed: endOfPrefixed(text, start, second, first, next)
      case .cased: endOfCased(text, start, second, first)
      }
    if let word { return word }
    if first.intersects(.number) {
      var end = second
      var count = 1
      while count < digits, end < text.count, case let (kind, width) = classes.look(text, end), kind.intersects(.number) {
        end += width
        count += 1
      }
      return end
    }
    let startsWithSpace = text[start] == UInt8(ascii: " ") && Self.isOther(next)
    if startsWithSpace || Self.isOther(first) {
      var end = run(text, from: startsWithSpace ? second : start) { Self.isOther($0) }
      while words != .spaced, end < text.count, isTail(text[end]) { end += 1 }
      return end
    }
    return endOfSpace(text, start)
  }

  /// `[^\s\p{L}\p{N}]`
  private static func isOther(_ kind: CharacterClass) -> Bool { !kind.intersects([.space, .letter, .number]) }

  private func isTail(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n") || (keepsSlashes && byte == UInt8(ascii: "/"))
  }

  @inline(__always)
  private func run(_ text: Span<UInt8>, from start: Int, while holds: (CharacterClass) -> Bool) -> Int {
    var end = start
    while end < text.count {
      let (kind, width) = classes.look(text, end)
      guard holds(kind) else { break }
      end += width
    }
    return end
  }

  private func endOfSpaced(_ text: Span<UInt8>, _ start: Int, _ first: CharacterClass, _ next: CharacterClass) -> Int? {
    let skips = text[start] == UInt8(ascii: " ") && !next.intersects(.space)
    let (begin, kind) = skips ? (start + 1, next) : (start, first)
    if kind.intersects(.letter) { return run(text, from: begin) { $0.intersects(.letter) } }
    if kind.intersects(.number) { return run(text, from: begin) { $0.intersects(.number) } }
    return nil
  }

  private func endOfPrefixed(
    _ text: Span<UInt8>, _ start: Int, _ second: Int, _ first: CharacterClass, _ next: CharacterClass
  ) -> Int? {
    if first.intersects(.letter) { return run(text, from: second) { $0.intersects(.letter) } }
    guard !first.intersects([.lineEnd, .number]), next.intersects(.letter) else { return nil }
    return run(text, from: second) { $0.intersects(.letter) }
  }

  private func endOfCased(_ text: Span<UInt8>, _ start: Int, _ second: Int, _ first: CharacterClass) -> Int? {
    let takesPrefix = !first.intersects([.lineEnd, .letter, .number])
    var end: Int?
    // The expression takes the prefix where it can, and does without where it cannot; only a mark can be either.
    if takesPrefix { end = endOfLower(text, second) }
    if end == nil, first.intersects([.letter, .mark]) { end = endOfLower(text, start) }
    if end == nil, takesPrefix { end = endOfUpper(text, second) }
    if end == nil, first.intersects([.letter, .mark]) { end = endOfUpper(text, start) }
    guard let end else { return nil }
    return contractions == .afterWords ? contraction(text, end, inAnyCase: true) ?? end : end
  }

  /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
  private func endOfLower(_ text: Span<UInt8>, _ start: Int) -> Int? {
    var end = start
    // The last of the first part that could as well be of the second, which must not be empty.
    var afterLastCaseless: Int?
    while end < text.count {
      let (kind, width) = classes.look(text, end)
      guard kind.intersects([.upper, .caseless, .mark]) else { break }
      end += width
      if !kind.intersects(.upper) { afterLastCaseless = end }
    }
    let rest = run(text, from: end) { $0.intersects([.lower, .caseless, .mark]) }
    return rest > end ? rest : afterLastCaseless
  }

  /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
  private func endOfUpper(_ text: Span<UInt8>, _ start: Int) -> Int? {
    let end = run(text, from: start) { $0.intersects([.upper, .caseless, .mark]) }
    return end > start ? run(text, from: end) { $0.intersects([.lower, .caseless, .mark]) } : nil
  }

  /// `\s*[\r\n]+|\s+(?!\S)|\s+`, of which the first is not part of GPT-2's expression.
  private func endOfSpace(_ text: Span<UInt8>, _ start: Int) -> Int {
    var end = start
    var last = start
    var afterLineEnd: Int?
    while end < text.count {
      let (kind, width) = classes.look(text, end)
      guard kind.intersects(.space) else { break }
      last = end
      end += width
      if kind.intersects(.lineEnd) { afterLineEnd = end }
    }
    if words != .spaced, let afterLineEnd { return afterLineEnd }
    return end == text.count || last == start ? end : last
  }

  /// `'s|'t|'re|'ve|'m|'ll|'d`
  private func contraction(_ text: Span<UInt8>, _ start: Int, inAnyCase: Bool) -> Int? {
    guard start + 1 < text.count, text[start] == UInt8(ascii: "'") else { return nil }
    func letter(_ offset: Int) -> UInt8 {
      guard start + offset < text.count else { return 0 }
      let byte = text[start + offset]
      return inAnyCase && (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
    }
    switch (letter(1), letter(2)) {
    case (UInt8(ascii: "s"), _), (UInt8(ascii: "t"), _), (UInt8(ascii: "m"), _), (UInt8(ascii: "d"), _): return start + 2
    case (UInt8(ascii: "r"), UInt8(ascii: "e")), (UInt8(ascii: "v"), UInt8(ascii: "e")), (UInt8(ascii: "l"), UInt8(ascii: "l")):
      return start + 3
    // The long s is the one letter elsewhere that these are without regard to case.
    case (0xC5, 0xBF) where inAnyCase: return start + 3
    default: return nil
    }
  }
}
