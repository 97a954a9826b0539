import Testing

@testable import Tokenizers

/// The scanners against the expressions they stand for, run by PCRE2.
@Suite struct WordPatternTests {
  static let expressions = [WordPattern.gpt2, WordPattern.llama3, WordPattern.qwen2, WordPattern.tekken, WordPattern.o200k]
  /// Of every class several, and what the expressions name.
  static let alphabet: [Unicode.Scalar] = Array(
    "aZ'sStTmMdDrReEvVlL\u{17F} \n\r\t\u{B}\u{85}\u{A0}\u{2028}\u{3000}/.,!_-12\u{660}\u{BD}\u{2167}\u{E9}\u{C9}\u{1C5}\u{2B0}\u{295}\u{4E00}\u{301}\u{903}\u{20DD}\u{1F600}\u{E0101}\u{AD}\u{200B}\u{180E}\u{10400}\u{10428}"
      .unicodeScalars)

  @Test(arguments: expressions)
  func cutsAsTheExpressionDoes(_ expression: String) throws {
    let pattern = try #require(WordPattern(expression))
    let engine = try RegularExpression(expression, field: "test")
    var generator = SplitMix(state: 7)
    for _ in 0..<6000 {
      var text = String.UnicodeScalarView()
      for _ in 0..<Int.random(in: 0...14, using: &generator) { text.append(Self.alphabet.randomElement(using: &generator) ?? " ") }
      let bytes = Bytes(String(text).utf8)
      var (found, expected): ([Range<Int>], [Range<Int>]) = ([], [])
      pattern.forEachMatch(in: bytes.span) { found.append($0) }
      try engine.forEachMatch(in: bytes, ranges: [0..<bytes.count]) { if !$1.isEmpty { expected.append($1) } }
      #expect(found == expected, "\(String(text).debugDescription)")
    }
  }

  @Test func otherExpressionsTakeTheEngine() {
    #expect(WordPattern(#"\p{L}+"#) == nil)
  }

  /// 1 MB without a place to cut, of each kind of run.
  @Test(arguments: ["a", " ", "\n", "1", "!", "\u{301}", "Aa", "' ", " \n"])
  func longRunsAreOnePass(_ unit: String) throws {
    for expression in Self.expressions {
      let text = Bytes(String(repeating: unit, count: 1_000_000 / unit.utf8.count).utf8)
      var end = 0
      try #require(WordPattern(expression)).forEachMatch(in: text.span) {
        #expect($0.lowerBound == end)
        end = $0.upperBound
      }
      #expect(end == text.count)
    }
  }
}
