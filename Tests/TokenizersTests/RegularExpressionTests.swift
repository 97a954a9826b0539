import Testing

@testable import Tokenizers

@Suite struct RegularExpressionTests {
  static func matches(_ expression: String, _ text: String) throws -> [String] {
    let bytes = Bytes(text.utf8)
    var matches: [String] = []
    try RegularExpression(expression, field: "test").forEachMatch(in: bytes, ranges: [0..<bytes.count]) { _, range in
      matches.append(String(decoding: bytes[range], as: UTF8.self))
    }
    return matches
  }

  /// The reference's engine where PCRE2 would by itself say something else; made with tokenizers 0.23.3.
  @Test(arguments: [
    (#"\s"#, "a\u{B}\u{85}\u{180E}\u{2028}", ["\u{B}", "\u{85}", "\u{2028}"]),
    (#"[^\S\n]+"#, "a\n \u{180E}\t", [" ", "\t"]),
    (#"\w+"#, "e\u{301}_1 \u{B2}\u{2070}", ["e\u{301}_1", "\u{B2}"]),
    (#"\bb"#, "b \u{301}b b", ["b", "b"]),
    (#"(?i:'s)"#, "'S '\u{17F}", ["'S", "'\u{17F}"]),
    (#"^a$"#, "a\na\r\na", ["a", "a"]),
    (#"\v"#, "\u{B}\n", ["\u{B}"]),
    (#"a{,2}b"#, "aaab", ["aab"]),
    (#"a{x"#, "a{x", ["a{x"]),
    (#"\u0061\x62\x{63}"#, "abc", ["abc"]),
    (#"\p{Han}+"#, "漢、字", ["漢", "字"]),
    (#"\p{^L}"#, "a1", ["1"]),
    ("b*", "abba", ["", "bb", ""]),
  ])
  func dialect(_ expression: String, _ text: String, _ expected: [String]) throws {
    let found = try Self.matches(expression, text)
    #expect(found.map { Array($0.utf8) } == expected.map { Array($0.utf8) }, "\(found)")
  }

  /// Beyond the stack of machine code, so the interpreter has to finish.
  @Test func longMatchesNeedNoStack() throws {
    let text = String(repeating: "ab", count: 100_000)
    #expect(try Self.matches("(?:(?:a|b)(?=.|$))+", text).map(\.utf8.count) == [200_000])
  }

  /// Every start of a run of 5,000 letters has more ways to divide it than there is time for.
  @Test(arguments: ["(a+)+$", "(?:a|a)*[cd]", "(a*)*[bc]", "(?=(a+)+$)x?"])
  func anExpressionThatBacktracksWithoutEndIsRefused(_ expression: String) throws {
    let start = ContinuousClock.now
    #expect(throws: TokenizerError.endlessPattern(field: "test", pattern: expression)) {
      try Self.matches(expression, String(repeating: "a", count: 5000) + "!")
    }
    #expect(start.duration(to: .now) < .seconds(10), "it takes well under a second where nothing else runs")
  }

  @Test func threadsShareOneExpression() async throws {
    let expression = try RegularExpression(PreTokenizerTests.llama3, field: "test")
    let text = Bytes(String(repeating: "It's 12345 words,\n", count: 200).utf8)
    let counts = try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<8 {
        group.addTask {
          var count = 0
          try expression.forEachMatch(in: text, ranges: [0..<text.count]) { _, _ in count += 1 }
          return count
        }
      }
      return try await group.reduce(into: [Int]()) { $0.append($1) }
    }
    #expect(counts == Array(repeating: 1400, count: 8))
  }
}
