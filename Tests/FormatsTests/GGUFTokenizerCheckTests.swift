import CompressKit
import Foundation
import TestSupport
import Testing

/// What of a tokenizer a GGUF vocabulary carries, and what is refused or remarked on because llama.cpp would cut text otherwise.
struct GGUFTokenizerCheckTests {
  /// A tokenizer with every part replaceable.
  private struct Parts {
    var added = ""
    var normalizer =
      #"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#
    var preTokenizer = "null"
    var before = ["<s>"]
    var after: [String] = []
    var fallsBack = true
    var merges = #""▁ a","▁a b","a b","▁ ▁""#

    private static let words = ["▁", "a", "b", "c", "é", "A", "ab", "▁a", "▁ab", "▁▁"]
    static let size = 280

    var json: String {
      let hex = (0...255).map { "\"<0x\($0 < 16 ? "0" : "")\(String($0, radix: 16, uppercase: true))>\":\($0 + 3)" }
      let vocabulary = hex + Self.words.enumerated().map { "\"\($1)\":\($0 + 259)" }
      func special(_ name: String) -> String { #"{"SpecialToken":{"id":"\#(name)","type_id":0}}"# }
      let single = before.map(special) + [#"{"Sequence":{"id":"A","type_id":0}}"#] + after.map(special)
      return #"""
        {"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true},
          {"id":2,"content":"</s>","special":true}\#(added)],
         "normalizer":\#(normalizer),"pre_tokenizer":\#(preTokenizer),"decoder":{"type":"Sequence","decoders":[
          {"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},
         "post_processor":{"type":"TemplateProcessing","single":[\#(single.joined(separator: ","))],"special_tokens":{
          "<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]},"</s>":{"id":"</s>","ids":[2],"tokens":["</s>"]}}},
         "model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":\#(fallsBack),
          "vocab":{"<unk>":0,"<s>":1,"</s>":2,\#(vocabulary.joined(separator: ","))},"merges":[\#(merges)]}}
        """#
    }
  }

  private struct Outcome {
    var refusal: String?
    var remarks: [String] = []
  }

  /// What the plan says of a tiny model beside which the files lie.
  private func plan(_ files: [String: String], vocabulary: Int = Parts.size) throws -> Outcome {
    try Places.withTemporaryDirectory { directory in
      for (name, text) in files { try Data(text.utf8).write(to: directory.appending(path: name)) }
      return try plan(directory, vocabulary: vocabulary)
    }
  }

  private func plan(_ directory: URL, vocabulary: Int, beginning: Int = 1) throws -> Outcome {
    let text = TinyModel.config.replacing("\"vocab_size\":64", with: "\"vocab_size\":\(vocabulary)")
      .replacing("\"bos_token_id\":1}", with: "\"bos_token_id\":\(beginning)}")
    let config = try ModelConfig(text: text.utf8, path: directory.appending(path: "config.json").path)
    do {
      _ = try GGUFFormat().configuration(of: [], in: config)
      return Outcome(remarks: try GGUFFormat().remarks(on: ArchitectureCatalog.standard.describe(config), in: config))
    } catch { return Outcome(refusal: "\(error)") }
  }

  @Test func whatAVocabularySaysIsTaken() throws {
    #expect(try plan(["tokenizer.json": Parts().json]).refusal == nil)
    #expect(try plan(["tokenizer.json": Parts().json]).remarks.isEmpty)
    var without = Parts()
    without.normalizer = #"{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#
    without.before = []
    #expect(try plan(["tokenizer.json": without.json]).refusal == nil)
    var tool = Parts()
    tool.added = #",{"id":270,"content":"<tool>","special":false,"normalized":false}"#
    #expect(try plan(["tokenizer.json": tool.json]).refusal == nil)
  }

  /// Every one of these was dropped without a word once.
  @Test func whatItCannotSayIsRefusedWithAText() throws {
    func replaced(_ step: String) -> Parts {
      var parts = Parts()
      parts.normalizer = parts.normalizer.replacing("[{", with: "[\(step),{")
      return parts
    }
    func added(_ flags: String) -> Parts {
      var parts = Parts()
      parts.added = #",{"id":270,"content":"<x>",\#(flags)}"#
      return parts
    }
    let cases: [(String, Parts)] = [
      ("spaces", replaced(#"{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}"#)),
      ("ends", replaced(#"{"type":"Strip","strip_left":true,"strip_right":true}"#)), ("lower case", replaced(#"{"type":"Lowercase"}"#)),
      ("NFKC", replaced(#"{"type":"NFKC"}"#)), ("accents", replaced(#"{"type":"NFD"},{"type":"StripAccents"}"#)),
      ("a letter", replaced(#"{"type":"Replace","pattern":{"String":"b"},"content":"a"}"#)),
      ("lstrip", added(#""special":true,"lstrip":true,"normalized":false"#)),
      ("rstrip", added(#""special":true,"rstrip":true,"normalized":false"#)),
      ("single_word", added(#""special":true,"single_word":true,"normalized":false"#)),
      ("normalized", added(#""special":false,"normalized":true"#)),
    ]
    for (name, parts) in cases {
      let reason = try #require(try plan(["tokenizer.json": parts.json]).refusal, "\(name)")
      #expect(reason.contains("llama.cpp would make other tokens than its tokenizer of \""), "\(name): \(reason)")
    }
    var unknown = Parts()
    unknown.fallsBack = false
    #expect(try plan(["tokenizer.json": unknown.json]).refusal?.contains("byte_fallback is false") == true)
    var merges = Parts()
    // Two parts of a token that no merge joins, and that llama.cpp would.
    merges.merges = #""▁ a","▁a b","▁ ▁""#
    #expect(try plan(["tokenizer.json": merges.json]).refusal?.contains("other tokens") == true)
  }

  @Test func theEndTokenIsCarried() async throws {
    var parts = Parts()
    parts.after = ["</s>"]
    let json = parts.json
    try await Places.withTemporaryDirectory { directory in
      let text = TinyModel.config.replacing("\"vocab_size\":64", with: "\"vocab_size\":\(Parts.size)")
      let original = try TinyModel.checkpoint(text)
      let model = try Model(original)
      let files = [CheckpointFile("tokenizer.json", .text(json))]
      try await withGGUF(try model.places.map { try model.part($0) }, original.config, files: files) { checkpoint in
        let metadata = try GGUFFile(checkpoint.directory.appending(path: "model.gguf")).metadata
        #expect(metadata["tokenizer.ggml.add_eos_token"] == .bool(true) && metadata["tokenizer.ggml.eos_token_id"] == .uint32(2))
        #expect(metadata["tokenizer.ggml.bos_token_id"] == .uint32(1))
        let read = try Tokenizer(at: checkpoint.directory.appending(path: "model.gguf"))
        #expect(try read.encode("ab", addingSpecialTokens: true) == [1, 267, 2])
      }
    }
    parts.after = ["<s>"]
    let other = "{\"eos_token\":\"</s>\"}"
    #expect(try plan(["tokenizer.json": parts.json, "tokenizer_config.json": other]).refusal?.contains("after a text") == true)
    parts.after = ["</s>", "</s>"]
    #expect(try plan(["tokenizer.json": parts.json]).refusal?.contains("[2, 2] after a text") == true)
  }

  @Test func whatConcernsFewTextsIsRemarkedOn() throws {
    var parts = Parts()
    parts.normalizer = "null"
    parts.preTokenizer = #"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false}"#
    let spaces = try plan(["tokenizer.json": parts.json])
    #expect(spaces.refusal == nil, "\(spaces.refusal ?? "")")
    #expect(spaces.remarks.count == 1 && spaces.remarks[0].contains("puts a space before every text"), "\(spaces.remarks)")
    var specials = Parts()
    specials.added = #",{"id":270,"content":"<x>","special":true,"normalized":true}"#
    let found = try plan(["tokenizer.json": specials.json])
    #expect(found.refusal == nil, "\(found.refusal ?? "")")
    #expect(found.remarks.contains { $0.contains("finds special tokens wherever") }, "\(found.remarks)")
  }

  @Test(.enabled(if: Places.hasAsset("tokenizers/gpt2/vocab.json"), "shared assets are absent"))
  func byteLevelTokenizersAreHeldToTheSame() throws {
    func json(_ normalizer: String, _ preTokenizer: String = #"{"type":"ByteLevel","add_prefix_space":false}"#) throws -> String {
      let alphabet = try JSON(parsing: Data(contentsOf: Places.asset("tokenizers/gpt2/vocab.json"))).members ?? []
      let vocabulary = alphabet.prefix(256).map { "\(JSON.string($0.key).text()):\($0.value.text())" }.joined(separator: ",")
      return #"""
        {"added_tokens":[],"normalizer":\#(normalizer),"pre_tokenizer":\#(preTokenizer),"decoder":{"type":"ByteLevel"},
         "model":{"type":"BPE","vocab":{\#(vocabulary)},"merges":[]}}
        """#
    }
    #expect(try plan(["tokenizer.json": json("null")], vocabulary: 256).refusal == nil)
    let composed = try plan(["tokenizer.json": json(#"{"type":"NFC"}"#)], vocabulary: 256)
    #expect(composed.refusal == nil && composed.remarks.first?.contains("NFC") == true)
    #expect(try plan(["tokenizer.json": json(#"{"type":"Lowercase"}"#)], vocabulary: 256).refusal?.contains("other tokens") == true)
    #expect(try plan(["tokenizer.json": json(#"{"type":"NFKC"}"#)], vocabulary: 256).refusal?.contains("other tokens") == true)
    let prefix = #"{"type":"ByteLevel","add_prefix_space":true}"#
    #expect(try plan(["tokenizer.json": json("null", prefix)], vocabulary: 256).refusal?.contains("other tokens") == true)
  }

  /// Tokenizers that people have.
  @Test(
    .enabled(if: Places.hasAsset("tokenizers/llama2/tokenizer.json"), "shared assets are absent"),
    arguments: [("llama2", 32000, 1, 1), ("phi3", 32064, 0, 1), ("gpt2", 50257, 0, 50256), ("llama3", 128256, 0, 128000)])
  func realOnes(_ name: String, _ size: Int, _ remarks: Int, _ beginning: Int) throws {
    let outcome = try plan(Places.asset("tokenizers/\(name)"), vocabulary: size, beginning: beginning)
    #expect(outcome.refusal == nil, "\(name): \(outcome.refusal ?? "")")
    #expect(outcome.remarks.count == remarks, "\(outcome.remarks)")
  }

  @Test(.enabled(if: Places.hasAsset("models/stories260K/hf/tokenizer.json"), "shared assets are absent"))
  func storiesCollapseSpaces() throws {
    let outcome = try plan(Places.asset("models/stories260K/hf"), vocabulary: 512)
    #expect(outcome.refusal?.contains("other tokens") == true, "\(outcome)")
  }
}
