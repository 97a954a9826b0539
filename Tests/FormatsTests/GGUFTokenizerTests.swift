import CompressKit
import Foundation
import TestSupport
import Testing

struct GGUFTokenizerTests {
  /// Metadata of a tiny model beside which the given files lie.
  private func metadata(_ files: [String: String], vocabulary: Int = 64) async throws -> GGUFMetadata {
    try await Places.withTemporaryDirectory { directory in
      var list: [CheckpointFile] = []
      for (name, text) in files {
        let url = directory.appending(path: name)
        try Data(text.utf8).write(to: url)
        list.append(CheckpointFile(name, .copy(of: url)))
      }
      let original = try TinyModel.checkpoint(TinyModel.config.replacing("\"vocab_size\":64", with: "\"vocab_size\":\(vocabulary)"))
      let model = try Model(original)
      var found: GGUFMetadata?
      try await withGGUF(try model.places.map { try model.part($0) }, original.config, files: list) { checkpoint in
        found = try GGUFFile(checkpoint.directory.appending(path: "model.gguf")).metadata
      }
      return try #require(found)
    }
  }

  /// Key by key what llama.cpp's own converter writes for this checkpoint.
  @Test(.enabled(if: FileManager.default.fileExists(atPath: Places.pocketLlama.path), "Checkpoints/pocket-llama is absent"))
  func pocketLlamaIsDescribedAsByTheConverter() async throws {
    let source = try Checkpoint(Places.pocketLlama)
    let model = try Model(source)
    try await withGGUF(
      try model.places.map { try model.part($0) }, source.config,
      files: source.companions().files
    ) { checkpoint in
      let metadata = try GGUFFile(checkpoint.directory.appending(path: "model.gguf")).metadata
      let expected: [(String, GGUFValue)] = [
        ("general.architecture", .string("llama")), ("general.type", .string("model")), ("llama.block_count", .uint32(6)),
        ("llama.context_length", .uint32(1024)), ("llama.embedding_length", .uint32(256)), ("llama.feed_forward_length", .uint32(768)),
        ("llama.attention.head_count", .uint32(8)), ("llama.attention.head_count_kv", .uint32(2)),
        ("llama.rope.freq_base", .float32(10000)), ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)),
        ("llama.attention.key_length", .uint32(32)), ("llama.attention.value_length", .uint32(32)), ("general.file_type", .uint32(32)),
        ("llama.vocab_size", .uint32(4096)), ("llama.rope.dimension_count", .uint32(32)), ("general.quantization_version", .uint32(2)),
        ("tokenizer.ggml.model", .string("gpt2")), ("tokenizer.ggml.pre", .string("llama-bpe")),
        ("tokenizer.ggml.bos_token_id", .uint32(0)), ("tokenizer.ggml.eos_token_id", .uint32(1)),
        ("tokenizer.ggml.add_bos_token", .bool(true)),
      ]
      for (key, value) in expected { #expect(metadata[key] == value, "\(key)") }
      func list(_ key: String) -> [GGUFValue] { metadata["tokenizer.ggml.\(key)"]?.elements ?? [] }
      #expect(list("tokens").count == 4096 && list("token_type").count == 4096 && list("merges").count == 3838)
      #expect(list("tokens").prefix(4).compactMap(\.string) == ["<|begin_of_text|>", "<|end_of_text|>", "!", "\""])
      #expect(list("token_type").prefix(4).compactMap(\.integer) == [3, 3, 1, 1])
      #expect(list("merges").prefix(4).compactMap(\.string) == ["\u{120} t", "h e", "\u{120} a", "i n"])
      // Nothing else is in the file but a name and the three lists.
      #expect(metadata.entries.count == expected.count + 4)
    }
  }

  private static let pieces = """
    {"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true},
      {"id":2,"content":"</s>","special":true},{"id":265,"content":"tool","special":false,"normalized":false}],
     "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"\u{2581}"},
      {"type":"Replace","pattern":{"String":" "},"content":"\u{2581}"}]},
     "pre_tokenizer":null,"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"}]},
     "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
      "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}},
     "model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true,
      "vocab":{"<unk>":0,"<s>":1,"</s>":2,\(bytes),"\u{2581}t":259,"er":260,"\u{2581}ter":261,"\u{2581}":262,"t":263,"e":264,"r":266},
      "merges":["\u{2581} t","e r","\u{2581}t er"]}}
    """

  private static let bytes = (0...255).map { byte in
    let digits = String(byte, radix: 16, uppercase: true)
    return "\"<0x\(byte < 16 ? "0" : "")\(digits)>\":\(byte + 3)"
  }.joined(separator: ",")

  @Test func sentencePieces() async throws {
    let settings = "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"unk_token\":\"<unk>\",\"chat_template\":\"{{ x }}\"}"
    let metadata = try await metadata(["tokenizer.json": Self.pieces, "tokenizer_config.json": settings], vocabulary: 268)
    func list(_ key: String) -> [GGUFValue] { metadata["tokenizer.ggml.\(key)"]?.elements ?? [] }
    #expect(metadata["tokenizer.ggml.model"] == .string("llama") && metadata["tokenizer.ggml.pre"] == .string("default"))
    let tokens = list("tokens").compactMap(\.string)
    #expect(tokens.prefix(4) == ["<unk>", "<s>", "</s>", "<0x00>"] && tokens[258] == "<0xFF>")
    #expect(tokens.suffix(9) == ["\u{2581}t", "er", "\u{2581}ter", "\u{2581}", "t", "e", "tool", "r", "[PAD267]"])
    let types = list("token_type").compactMap(\.integer)
    #expect(types.prefix(4) == [2, 3, 3, 6] && types.suffix(9) == [1, 1, 1, 1, 1, 1, 4, 1, 5])
    // Merges in their order, then what no merge makes; SentencePiece's own scores count down likewise.
    #expect(list("scores").compactMap(\.double).suffix(9) == [0, -1, -2, -3, -4, -5, -1000, -6, -10000])
    #expect(metadata["tokenizer.ggml.merges"] == nil)
    for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] { #expect(metadata["tokenizer.ggml.\(key)_token_id"]?.integer == id) }
    #expect(metadata["tokenizer.ggml.add_bos_token"] == .bool(true) && metadata["tokenizer.ggml.add_space_prefix"] == .bool(true))
    #expect(metadata["tokenizer.ggml.add_eos_token"] == nil)
    #expect(metadata["tokenizer.chat_template"] == .string("{{ x }}"))
  }

  private func byteLevel(_ preTokenizer: String, more: String = "") -> String {
    """
    {"added_tokens":[{"id":4,"content":"<|end|>","special":false}],"pre_tokenizer":\(preTokenizer),
     "decoder":{"type":"ByteLevel"},\(more)"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"ab":3},"merges":[["a","b"]]}}
    """
  }

  @Test func byteLevelPreTokenizersHaveNames() async throws {
    let level = "{\"type\":\"ByteLevel\"}"
    func split(_ regex: String) -> String {
      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\(regex.replacing("\\", with: "\\\\"))\"},\"behavior\":\"Isolated\"},\(level)]}"
    }
    let start = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
    let end = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    let digits = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},\(level)]}"
    // As the tokenizer.json of gpt-oss spells it.
    let cased =
      #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"#
      + #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"#
      + #"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    for (node, name) in [
      (level, "gpt-2"), (digits, "smollm"), (split(start + "\\p{N}" + end), "qwen2"), (split(start + "\\p{N}{1,3}" + end), "dbrx"),
      (split(cased), "gpt-4o"),
    ] {
      let found = try await metadata(["tokenizer.json": byteLevel(node)], vocabulary: 5)
      #expect(found["tokenizer.ggml.pre"] == .string(name) && found["tokenizer.ggml.model"] == .string("gpt2"))
      #expect(found["tokenizer.ggml.merges"] == .strings(["a b"]) && found["tokenizer.ggml.token_type"] == .integers([1, 1, 1, 1, 3]))
      #expect(found["tokenizer.ggml.scores"] == nil && found["tokenizer.ggml.add_bos_token"] == .bool(false))
    }
  }

  @Test func whatHasNoSpellingIsRefusedWithTheReason() async throws {
    func reason(_ files: [String: String], vocabulary: Int = 5) async -> String {
      do {
        _ = try await metadata(files, vocabulary: vocabulary)
        return ""
      } catch { return "\(error)" }
    }
    let split = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+\"}}"
    let sequence = "{\"type\":\"Sequence\",\"pretokenizers\":[\(split),{\"type\":\"ByteLevel\"}]}"
    #expect(await reason(["tokenizer.json": byteLevel(sequence)]).contains("pre-tokenizer Split, ByteLevel /\\w+/"))
    #expect(await reason(["tokenizer.json": "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}"]).contains("Unigram"))
    #expect(await reason(["tokenizer.json": byteLevel("{\"type\":\"ByteLevel\"}")], vocabulary: 4).contains("beyond the 4 rows"))
    #expect(await reason(["tokenizer.json": "{"]).contains("tokenizer.json"))
    #expect(await reason(["tokenizer.model": "x"]).contains("tokenizer.model: no protocol-buffer field"))
    #expect(await reason(["vocab.json": "{}"]).contains("vocab.json alone"))
    #expect(await reason(["vocab.json": "{}", "merges.txt": "a b"]).contains("merges.txt applies is not known"))
  }
}
