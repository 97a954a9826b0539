import Testing

@testable import Tokenizers

@Suite struct AddedTokenTests {
  /// `a` and `b` are 0 and 1, and a space is 2; one added token is 9.
  static func ids(_ text: String, _ token: String, _ more: String = "") throws -> [Int32] {
    let model = #"{"vocab": {"a": 0, "b": 1, " ": 2}, "merges": []}"#
    return try Tokenizer(model: model, "\"added_tokens\": [\(token)] \(more)").encode(text, addingSpecialTokens: true)
  }

  static func token(_ content: String, _ flags: String, id: Int = 9) -> String {
    #"{"id": \#(id), "content": "\#(content)", \#(flags)}"#
  }

  @Test func stripTakesWhiteSpace() throws {
    #expect(try Self.ids("a <x> b", Self.token("<x>", #""normalized": false"#)) == [0, 2, 9, 2, 1])
    #expect(try Self.ids("a <x> b", Self.token("<x>", #""lstrip": true"#)) == [0, 9, 2, 1])
    #expect(try Self.ids("a <x> \u{A0}b", Self.token("<x>", #""rstrip": true"#)) == [0, 2, 9, 1])
    #expect(try Self.ids("<x> <x>", Self.token("<x>", #""lstrip": true, "rstrip": true"#)) == [9, 9])
  }

  @Test func singleWordStandsAlone() throws {
    let token = Self.token("ab", #""single_word": true"#)
    #expect(try Self.ids("ab aab ab", token) == [9, 2, 0, 0, 1, 2, 9])
    #expect(try Self.ids("ab_ ab\u{301} ab", token) == [0, 1, 2, 0, 1, 2, 9])
  }

  @Test func longestOfTheLeftmost() throws {
    let tokens = zip(["ab", "ba", "aba"], 7...).map { Self.token($0, #""special": true"#, id: $1) }
    #expect(try Self.ids("ababa", tokens.joined(separator: ", ")) == [9, 8])
  }

  @Test func normalizedContentIsNormalizedFirst() throws {
    let normalizer = #", "normalizer": {"type": "Lowercase"}"#
    #expect(try Self.ids("AB", Self.token("Ab", #""normalized": true"#), normalizer) == [9])
    #expect(try Self.ids("ABAb", Self.token("Ab", #""normalized": false"#), normalizer) == [0, 1, 9])
  }

  @Test func idOfTheListWinsOverTheVocabulary() throws {
    #expect(try Self.ids("ab", Self.token("a", #""normalized": false"#)) == [9, 1])
  }

  @Test func specialTokensAreLeftOutOnRequest() throws {
    let added = "\"added_tokens\": [\(Self.token("<x>", #""special": true"#)), \(Self.token("<y>", #""special": false"#, id: 10))]"
    let tokenizer = try Tokenizer(model: #"{"vocab": {"a": 0}, "merges": []}"#, "\(added), \"decoder\": {\"type\": \"Fuse\"}")
    #expect(try tokenizer.decode([9, 0, 10, 77, -1], skippingSpecialTokens: true) == "a<y>")
    #expect(try tokenizer.decode([9, 0, 10, 77, -1], skippingSpecialTokens: false) == "<x>a<y>")
    #expect(tokenizer.vocabularySize == 11)
  }

  /// The library (0.23.3) looks for the normalised content among the special ones and so leaves nothing out; this is on purpose unlike it.
  @Test func specialTokensThatAreNormalizedAreLeftOutToo() throws {
    let added = "\"added_tokens\": [\(Self.token("<s>", #""special": true, "normalized": true"#))], \(BytePairEncodingTests.legacy)"
    let tokenizer = try Tokenizer(model: #"{"vocab": {"▁": 0, "a": 1}, "merges": []}"#, "\(added), \"decoder\": {\"type\": \"Fuse\"}")
    #expect(try tokenizer.encode("<s>a", addingSpecialTokens: false) == [9, 1])
    #expect(try tokenizer.decode([9, 1], skippingSpecialTokens: true) == "a")
    #expect(try tokenizer.decode([9, 1], skippingSpecialTokens: false) == "▁<s>a")
  }
}
