import Foundation
import StrictJSON
import Testing

@testable import Tokenizers

/// Tokenizers from everything but `tokenizer.json`.
@Suite struct SourceTests {
  static let gpt2Files: [String: String] = [
    "vocab.json":
      #"{"h":0,"e":1,"l":2,"o":3,"Ġ":4,"he":5,"ll":6,"hell":7,"hello":8,"Ġhello":9,"<|endoftext|>":10,"1":11,"2":12,"12":13,"'":14}"#,
    "merges.txt": "#version: 0.2\nh e\nl l\nhe ll\nhell o\nĠ hello\n1 2\n",
    "tokenizer_config.json": #"{"tokenizer_class": "GPT2Tokenizer"}"#,
  ]
  static let wordPieceFiles = ["vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\n!\nworld\n"]
  /// The 256 bytes, and a few tokens more, as tiktoken's files have them.
  static let ranks: String = {
    var tokens: [Bytes] = (0...255).map { [UInt8($0)] }
    tokens += ["he", "ll", "hell", "aa", "aaa", " he"].map { Bytes($0.utf8) }
    return tokens.enumerated().map { "\(Base64.encoding($1)) \($0)\n" }.joined()
  }()

  static func source(_ files: [String: String]) throws -> TokenizerSource? {
    try TokenizerSource { files[$0].map { Data($0.utf8) } }
  }

  static func tokenizer(_ files: [String: String]) throws -> Tokenizer { try Tokenizer(try #require(try source(files))) }

  @Test func vocabularyAndMergesOfGPT2() throws {
    let tokenizer = try Self.tokenizer(Self.gpt2Files)
    #expect(try tokenizer.encode("hello hello<|endoftext|>12", addingSpecialTokens: true) == [8, 9, 10, 13])
    #expect(try tokenizer.decode([8, 9, 10], skippingSpecialTokens: true) == "hello hello")
  }

  @Test func theFamilyDecides() throws {
    var files = Self.gpt2Files
    files["tokenizer_config.json"] = #"{"tokenizer_class": "Qwen2TokenizerFast"}"#
    #expect(try Self.tokenizer(files).encode("hello12", addingSpecialTokens: true) == [8, 11, 12])
    files["tokenizer_config.json"] = nil
    #expect(throws: TokenizerError.unknownClass(nil, known: [])) {
      do { _ = try Self.tokenizer(files) } catch TokenizerError.unknownClass(let name, _) {
        throw TokenizerError.unknownClass(name, known: [])
      }
    }
    files["config.json"] = #"{"model_type": "qwen3"}"#
    #expect(try Self.tokenizer(files).encode("12", addingSpecialTokens: true) == [11, 12])
    files["tokenizer_config.json"] = #"{"tokenizer_class": "SomeTokenizer"}"#
    #expect { try Self.tokenizer(files) } throws: { "\($0)".contains("class SomeTokenizer") }
  }

  @Test func declaredTokensAndThoseAround() throws {
    var files = Self.gpt2Files
    files["tokenizer_config.json"] =
      #"{"tokenizer_class": "GPT2Tokenizer", "bos_token": "<b>", "add_bos_token": true, "pad_token": {"content": "<p>"}}"#
    // Names without an id follow the vocabulary.
    let named = try Self.tokenizer(files)
    #expect(try named.prefix == [15] && named.encode("<p>", addingSpecialTokens: false) == [16])
    files["tokenizer_config.json"] =
      #"{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"20": {"content": "<x>", "special": true, "lstrip": true}}}"#
    #expect(try Self.tokenizer(files).encode("hello  <x>", addingSpecialTokens: false) == [8, 20])
    files["tokenizer_config.json"] = #"{"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true}"#
    #expect(try Self.tokenizer(files).encode("hello", addingSpecialTokens: false) == [9])
  }

  @Test func vocabularyOfBERT() throws {
    let tokenizer = try Self.tokenizer(Self.wordPieceFiles)
    #expect(try tokenizer.encode("H\u{E9}llos, WORLD! [MASK]", addingSpecialTokens: true) == [2, 5, 6, 1, 8, 7, 4, 3])
    #expect(try tokenizer.decode([2, 5, 6, 7, 3], skippingSpecialTokens: true) == "hellos!")
  }

  @Test func ranksOfTiktoken() throws {
    let files = ["tokenizer.model": Self.ranks, "config.json": #"{"model_type": "llama"}"#]
    let tokenizer = try Self.tokenizer(files)
    #expect(tokenizer.prefix == [262] && tokenizer.vocabularySize == 262 + 256)
    #expect(try tokenizer.encode("hell he<|eot_id|>", addingSpecialTokens: false) == [258, 261, 271])
    // "aa" from the left first, then what is left of it.
    #expect(try tokenizer.encode("aaaaa", addingSpecialTokens: false) == [259, 260])
    #expect(try tokenizer.decode([258, 261], skippingSpecialTokens: true) == "hell he")
    let document = try #require(try Self.source(files)).document
    #expect(document["model"]?["merges"]?.elements?.count == 7)
    #expect(try Tokenizer(json: document, configuration: nil).encode("hell he", addingSpecialTokens: true) == [262, 258, 261])
    #expect { try Self.tokenizer(["tokenizer.model": Self.ranks]) } throws: { "\($0)".contains("262, which is not Llama 3's") }
    let damaged = ["tokenizer.model": Self.ranks + "aGU= 7\n", "config.json": #"{"model_type": "llama"}"#]
    #expect { try Self.tokenizer(damaged) } throws: { "\($0)".contains("line 263") }
  }

  @Test func theOrderIsAsStated() throws {
    var files = Self.gpt2Files.merging(Self.wordPieceFiles) { first, _ in first }
    #expect(try Self.tokenizer(files).encode("hello", addingSpecialTokens: false) == [8])
    files["tokenizer.model"] = Self.ranks
    files["config.json"] = #"{"model_type": "llama"}"#
    #expect(try Self.tokenizer(files).encode("he", addingSpecialTokens: false) == [256])
    files["tokenizer.json"] = #"{"model": {"type": "BPE", "vocab": {"h": 3, "e": 4}, "merges": []}}"#
    #expect(try Self.tokenizer(files).encode("he", addingSpecialTokens: false) == [3, 4])
    #expect(try Self.source(["vocab.json": "{}"]) == nil)
  }
}

extension TokenizerSource? {
  fileprivate static func == (source: Self, _: _OptionalNilComparisonType) -> Bool { if case .none = source { true } else { false } }
}
