import StrictJSON
import Testing

@testable import Tokenizers

@Suite struct BytePairEncodingTests {
  /// `<unk> <s> </s> <0x00>…<0xFF> ▁ a b ▁a ab ▁ab`, as in Llama 2 but smaller.
  static let pieces: String = {
    let bytes = (0...255).map { byte in
      let digits = String(byte, radix: 16, uppercase: true)
      return "<0x\(byte < 16 ? "0" : "")\(digits)>"
    }
    let tokens = ["<unk>", "<s>", "</s>"] + bytes + ["▁", "a", "b", "▁a", "ab", "▁ab"]
    let vocabulary = tokens.enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
    return """
      {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": {\(vocabulary)},
       "merges": ["▁ a", "a b", "▁a b"]}
      """
  }()
  static let around = """
    "added_tokens": [{"id": 1, "content": "<s>", "normalized": false, "special": true},
      {"id": 2, "content": "</s>", "normalized": false, "special": true}],
    "post_processor": {"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}
    """
  static let legacy = """
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    """
  static let resaved = """
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}
    """

  /// Made with tokenizers 0.23.3.
  @Test(
    arguments: [
      ("ab ab", [1, 264, 264], [1, 264, 264]),
      ("ab</s>ab", [1, 264, 2, 264], [1, 264, 2, 263]),
      (" ab", [1, 259, 264], [1, 264]),
      ("é", [1, 259, 198, 172], [1, 259, 198, 172]),
      ("", [1], [1]),
      ("a  b", [1, 262, 259, 259, 261], [1, 262, 259, 259, 261]),
      ("</s> ab", [1, 2, 259, 264], [1, 2, 264]),
    ] as [(String, [Int32], [Int32])])
  func characters(_ text: String, _ legacy: [Int32], _ resaved: [Int32]) throws {
    let old = try Tokenizer(model: Self.pieces, "\(Self.around), \(Self.legacy)")
    let new = try Tokenizer(model: Self.pieces, "\(Self.around), \(Self.resaved)")
    #expect(try old.encode(text, addingSpecialTokens: true) == legacy)
    #expect(try new.encode(text, addingSpecialTokens: true) == resaved)
    #expect(old.prefix == [1] && old.suffix.isEmpty && old.vocabularySize == 265)
  }

  @Test func mergingStopsAtMissingMerges() throws {
    let vocabulary = #""vocab": {"a": 0, "b": 1, "c": 2, "abc": 3, "ab": 4}, "merges": [["a", "b"]]"#
    let merging = try Tokenizer(model: #"{"type": "BPE", \#(vocabulary)}"#)
    let ignoring = try Tokenizer(model: #"{"ignore_merges": true, \#(vocabulary)}"#)
    #expect(try merging.encode("abc", addingSpecialTokens: false) == [4, 2])
    #expect(try ignoring.encode("abc", addingSpecialTokens: false) == [3])
  }

  @Test func leftmostOfEqualRanks() throws {
    let tokenizer = try Tokenizer(model: #"{"type": "BPE", "vocab": {"a": 0, "aa": 1, "aaa": 2}, "merges": ["a a"]}"#)
    #expect(try tokenizer.encode("aaaaa", addingSpecialTokens: false) == [1, 1, 0])
  }

  @Test func lastRankOfARepeatedMergeCounts() throws {
    let vocabulary = #"{"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}"#
    let tokenizer = try Tokenizer(model: ##"{"vocab": \##(vocabulary), "merges": ["#version: 0.2", "a b", "b c", "a b"]}"##)
    #expect(try tokenizer.encode("abc", addingSpecialTokens: false) == [0, 4])
  }

  /// "é" in one code point and in two are one key to `String` and two tokens to the model.
  @Test func equivalentTokensStayApart() throws {
    let tokenizer = try Tokenizer(model: #"{"vocab": {"\u00e9": 0, "e": 1, "\u0301": 2, "e\u0301": 3}, "merges": ["e \u0301"]}"#)
    #expect(try tokenizer.encode("\u{E9}e\u{301}", addingSpecialTokens: false) == [0, 3])
    let text = try tokenizer.decode([3, 0], skippingSpecialTokens: false)
    #expect(Array(text.unicodeScalars) == ["e", "\u{301}", " ", "\u{E9}"])
  }

  /// Quadratic merging would take hours.
  @Test func aMillionCharactersInOnePiece() throws {
    let tokenizer = try Tokenizer(model: #"{"vocab": {"a": 0, "b": 1, "aa": 2, "aaaa": 3}, "merges": ["a a", "aa aa"]}"#)
    let ids = try tokenizer.encode(String(repeating: "aaaaab", count: 170_000), addingSpecialTokens: false)
    #expect(ids == Array(repeatElement([3, 0, 1], count: 170_000).joined()))
  }

  /// The heap against the definition: the lowest rank anywhere, leftmost, again and again.
  @Test(arguments: 0..<40)
  func mergeLoopFollowsTheDefinition(_ seed: UInt64) {
    var random = SplitMix(state: seed)
    var table = MergeTable(minimumCapacity: 60)
    var merges: [[Int32]: (rank: UInt32, result: Int32)] = [:]
    for rank in 0..<UInt32(60) {
      let result = Int32(4 + rank)
      let left = Int32.random(in: 0..<result, using: &random), right = Int32.random(in: 0..<min(result, 6), using: &random)
      table.set(MergeTable.Merge(rank: rank, result: result), left, right)
      merges[[left, right]] = (rank, result)
    }
    let start = (0..<Int.random(in: 0...300, using: &random)).map { _ in Int32.random(in: 0..<4, using: &random) }
    var expected = start
    while let best = expected.indices.dropLast().compactMap({ index in
      merges[[expected[index], expected[index + 1]]].map { (rank: $0.rank, index: index, result: $0.result) }
    }).min(by: { ($0.rank, $0.index) < ($1.rank, $1.index) }) {
      expected.replaceSubrange(best.index...best.index + 1, with: [best.result])
    }
    var tokens = start
    var loop = MergeLoop()
    loop.run(&tokens, merges: table)
    #expect(tokens == expected)
  }

  @Test func byteTableReplacesAndGrows() {
    var table = ByteTable()
    for number in 0..<Int32(5000) { table.set(number, for: Bytes("key \(number)".utf8).span) }
    table.set(-7, for: Bytes("key 42".utf8).span)
    table.set(1, for: Bytes().span)
    #expect(table.count == 5001)
    #expect(table.value(of: Bytes("key 42".utf8).span) == -7 && table.value(of: Bytes("key 4999".utf8).span) == 4999)
    #expect(table.value(of: Bytes().span) == 1 && table.value(of: Bytes("key 5000".utf8).span) == nil)
  }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
