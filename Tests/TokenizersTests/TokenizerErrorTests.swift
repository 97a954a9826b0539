import Foundation
import StrictJSON
import Testing

@testable import Tokenizers

@Suite struct TokenizerErrorTests {
  /// Replacements that feed each other, before the model and behind it.
  @Test func textThatGrowsWithoutEndIsRefused() throws {
    let doubling = #"{"type":"Replace","pattern":{"String":"a"},"content":"aa"}"#
    let steps = Array(repeating: doubling, count: 40).joined(separator: ",")
    func tokenizer(_ extra: String) throws -> Tokenizer {
      let text = #"{"added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]},\#(extra)}"#
      return try Tokenizer(json: try JSON(parsing: text.utf8), configuration: nil)
    }
    let growing = try tokenizer(#""normalizer":{"type":"Sequence","normalizers":[\#(steps)]}"#)
    #expect(throws: TokenizerError.endlessText(limit: 1 << 20 + 64)) { try growing.encode("a", addingSpecialTokens: false) }
    let decoding = try tokenizer(#""decoder":{"type":"Sequence","decoders":[\#(steps)]}"#)
    #expect(throws: TokenizerError.endlessText(limit: 1 << 20 + 64)) { try decoding.decode([0], skippingSpecialTokens: false) }
    let big = #"{"type":"Replace","pattern":{"String":"a"},"content":"\#(String(repeating: "b", count: 100_000))"}"#
    let inserting = try tokenizer(#""normalizer":\#(big)"#)
    #expect(throws: TokenizerError.self) { try inserting.encode(String(repeating: "a", count: 5000), addingSpecialTokens: false) }
    #expect(try inserting.encode("c", addingSpecialTokens: false) == [])
  }

  static let model = #"{"vocab": {"a": 0, "b": 1}, "merges": []}"#

  @Test(arguments: [
    ("normalizer", "Unheard"), ("pre_tokenizer", "UnicodeScripts"), ("pre_tokenizer", "FixedLength"), ("post_processor", "Unheard"),
    ("decoder", "CTC"), ("decoder", "BPEDecoder"),
  ])
  func componentsAreRefused(_ field: String, _ type: String) {
    #expect(throws: TokenizerError.unsupportedComponent(field: field, type: type)) {
      try Tokenizer(model: Self.model, #""\#(field)": {"type": "\#(type)"}"#)
    }
  }

  @Test func modelsAreRefused() {
    #expect(throws: TokenizerError.unsupportedComponent(field: "model", type: "Unheard")) {
      try Tokenizer(model: #"{"type": "Unheard", "vocab": {}}"#)
    }
    #expect(throws: TokenizerError.unsupportedComponent(field: "model", type: "WordPiece")) {
      try Tokenizer(model: #"{"type": "WordPiece", "vocab": {"[UNK]": 0}}"#, #""pre_tokenizer": {"type": "ByteLevel"}"#)
    }
  }

  @Test(arguments: [
    (#"{"type": "Unigram", "vocab": [["a", 1], ["b"]]}"#, TokenizerError.invalidField("model.vocab[1]", expected: .scoredPiece)),
    (#"{"type": "Unigram", "vocab": [["a", 1e999]]}"#, .invalidField("model.vocab[0]", expected: .scoredPiece)),
    (#"{"type": "Unigram", "vocab": [["a", 1]], "unk_id": 1}"#, .unknownToken("1", field: "model.unk_id")),
    (#"{"type": "WordPiece", "vocab": {"a": 0}}"#, .unknownToken("[UNK]", field: "model.unk_token")),
  ])
  func otherDamagedModelsAreRefused(_ model: String, _ error: TokenizerError) {
    #expect(throws: error) { try Tokenizer(model: model) }
  }

  @Test func nestedComponentsAreNamedByPath() {
    let steps = #""pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "UnicodeScripts"}]}"#
    #expect(throws: TokenizerError.unsupportedComponent(field: "pre_tokenizer.pretokenizers[1]", type: "UnicodeScripts")) {
      try Tokenizer(model: Self.model, steps)
    }
  }

  @Test(arguments: [
    (#"{"vocab": {"a": 0, "b": 0}, "merges": []}"#, TokenizerError.repeatedIdentifier(0)),
    (#"{"vocab": {"a": -1}, "merges": []}"#, .invalidField("model.vocab[\"a\"]", expected: .identifier)),
    (#"{"vocab": {"a": 0}, "merges": ["a"]}"#, .invalidField("model.merges[0]", expected: .merge)),
    (#"{"vocab": {"a": 0}, "merges": [["a", "a"]]}"#, .unknownToken("aa", field: "model.merges[0]")),
    (#"{"vocab": {"a": 0}, "merges": [], "unk_token": "u"}"#, .unknownToken("u", field: "model.unk_token")),
    (#"{"vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}"#, .unsupportedOption(field: "model.end_of_word_suffix", value: "</w>")),
    (
      #"{"vocab": {}, "merges": [], "continuing_subword_prefix": "@"}"#,
      .unsupportedOption(field: "model.continuing_subword_prefix", value: "@")
    ),
    (#"{"type": "BPE", "merges": []}"#, .invalidField("model.vocab", expected: .object)),
    (#"{"vocab": {}, "merges": [], "fuse_unk": 1}"#, .invalidField("model.fuse_unk", expected: .boolean)),
  ])
  func damagedModelsAreRefused(_ model: String, _ error: TokenizerError) {
    #expect(throws: error) { try Tokenizer(model: model) }
  }

  @Test(arguments: [
    #"[\p{Lu}&&[^\p{Han}]]"#, "[a[b]]", "a{2}+", "a{2}?", #"\h"#, "(?m:.)", "(?<name>a)", "a(?i)b", #"(a)\1"#, #"\p{L"#, "(*F)", #"[\W]"#,
  ])
  func expressionsThatPCRE2ReadsOtherwiseAreRefused(_ expression: String) {
    #expect {
      try RegularExpression(expression, field: "f")
    } throws: {
      guard case .unsupportedPattern("f", expression, _) = $0 as? TokenizerError else { return false }
      return true
    }
  }

  @Test(arguments: ["(a", "[a", "*", #"\p{Unheard}"#])
  func expressionsThatDoNotCompileAreRefused(_ expression: String) {
    #expect {
      try RegularExpression(expression, field: "f")
    } throws: {
      guard case .invalidPattern("f", expression, _) = $0 as? TokenizerError else { return false }
      return true
    }
  }

  @Test func otherVersionsAreRefused() {
    #expect(throws: TokenizerError.unsupportedOption(field: "version", value: "\"2.0\"")) {
      try Tokenizer(model: Self.model, #""version": "2.0""#)
    }
  }

  @Test func filesAreNamed() throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "tokenizer-\(UUID().uuidString)")
    let file = directory.appending(path: "tokenizer.json")
    #expect(throws: TokenizerError.noTokenizer(path: directory.path)) { try Tokenizer(directory: directory) }
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    try Data("{".utf8).write(to: file)
    #expect {
      try Tokenizer(directory: directory)
    } throws: {
      guard case .malformedJSON("tokenizer.json", _) = $0 as? TokenizerError else { return false }
      return true
    }
    try Data(#"{"model": \#(Self.model)}"#.utf8).write(to: file)
    let configuration = #"{"add_bos_token": true, "bos_token": {"content": "b"}}"#
    try Data(configuration.utf8).write(to: directory.appending(path: "tokenizer_config.json"))
    #expect(try Tokenizer(directory: directory).encode("a", addingSpecialTokens: true) == [1, 0])
  }

  /// Every message names its place and ends in advice.
  @Test func descriptions() {
    let error = TokenizerError.unsupportedComponent(field: "pre_tokenizer", type: "FixedLength")
    #expect(
      error.description
        == "pre_tokenizer is of type \"FixedLength\", which is not implemented; use a model whose tokenizer does without it"
    )
    #expect(
      TokenizerError.invalidField("model.vocab", expected: .object).description
        == "model.vocab must be an object; correct the file or save the tokenizer again with a current version of tokenizers")
  }
}
