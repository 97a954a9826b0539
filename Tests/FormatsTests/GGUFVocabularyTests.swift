import CompressKit
import Foundation
import TestSupport
import Testing

/// The tokenizer that a GGUF file holds.
struct GGUFVocabularyTests {
  /// llama.cpp's own vocabularies, texts and ids, made without special tokens.
  @Test(
    .enabled(if: Places.hasAsset("tokenizers/gguf_vocab/ggml-vocab-phi-3.gguf"), "shared assets are absent"),
    arguments: ["gpt-2", "llama-spm", "phi-3"])
  func conformance(_ name: String) throws {
    let place = "tokenizers/gguf_vocab/ggml-vocab-\(name).gguf"
    let tokenizer = try Tokenizer(at: Places.asset(place))
    let texts = try String(contentsOf: Places.asset(place + ".inp"), encoding: .utf8).components(separatedBy: "\n__ggml_vocab_test__\n")
    let lines = try String(contentsOf: Places.asset(place + ".out"), encoding: .utf8).components(separatedBy: "\n")
    #expect(texts.count > 40 && lines.count >= texts.count)
    for (text, line) in zip(texts, lines) {
      #expect(try tokenizer.encode(text, addingSpecialTokens: false) == line.split(separator: " ").compactMap { Int32($0) }, "\(text)")
    }
  }

  private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures")

  /// User-defined tokens, the space after them, and rows that name no token, as llama.cpp has them (`tools/golden/gguf_files.py`); also by
  /// the `tokenizer.json` that stands for the vocabulary in other formats.
  @Test(arguments: ["with", "without"])
  func sentencePieceVocabulariesAreCutAsByLlamaCpp(_ key: String) throws {
    let cases = try #require(JSON(parsing: Data(contentsOf: Self.fixtures.appending(path: "vocabulary.json"))).elements)
    var metadata = try GGUFFile(Self.fixtures.appending(path: "vocabulary.gguf")).metadata
    metadata["tokenizer.ggml.add_space_prefix"] = .bool(key == "with")
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "vocabulary.gguf")
      try Data(GGUFHeader(layingOut: [], metadata: metadata).serialized()).write(to: url)
      let native = try Tokenizer(at: url)
      let files = try GGUFFile(url).tokenizerFiles()
      let document = directory.appending(path: "plain")
      try FileManager.default.createDirectory(at: document, withIntermediateDirectories: true)
      for file in files {
        if case .text(let text) = file.content { try Data(text.utf8).write(to: document.appending(path: file.name)) }
      }
      let translated = try Tokenizer(directory: document)
      #expect(cases.count == 30)
      for entry in cases {
        let text = try #require(entry["text"]?.string)
        let ids = try #require(entry[key]?.elements).compactMap { $0.integer.map { Int32($0) } }
        #expect(try native.encode(text, addingSpecialTokens: false) == ids, "\(text)")
        #expect(try translated.encode(text, addingSpecialTokens: false) == ids, "\(text), by tokenizer.json")
      }
      // Only a space that stands before every text is taken away again.
      let decoded = try native.decode([259, 273, 272], skippingSpecialTokens: true)
      #expect(decoded == (key == "with" ? "a deep<tool>" : " a deep<tool>"))
    }
  }

  @Test(.enabled(if: Places.hasAsset("tokenizers/gguf_vocab/ggml-vocab-gpt-neox.gguf"), "shared assets are absent"))
  func cuttingWithoutANameIsRefused() {
    #expect { _ = try Tokenizer(at: Places.asset("tokenizers/gguf_vocab/ggml-vocab-gpt-neox.gguf")) } throws: {
      ($0 as? TokenizerError) == .unsupportedOption(field: "tokenizer.ggml.pre", value: "default")
    }
  }

  private static let llama3 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

  /// What is written into a GGUF file is read from it again, and put beside weights that leave it.
  @Test func thereAndBack() async throws {
    let config = TinyModel.config.replacing("\"vocab_size\":64", with: "\"vocab_size\":6")
    let split = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\(Self.llama3.replacing("\\", with: "\\\\"))\"},\"behavior\":\"Isolated\"}"
    let json = """
      {"added_tokens":[{"id":4,"content":"<|s|>","special":true}],
       "pre_tokenizer":{"type":"Sequence","pretokenizers":[\(split),{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
       "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|s|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
       "special_tokens":{"<|s|>":{"id":"<|s|>","ids":[4],"tokens":["<|s|>"]}}},
       "decoder":{"type":"ByteLevel"},
       "model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2,"\u{120}":3},"merges":[["a","b"]]}}
      """
    let settings = "{\"bos_token\":\"<|s|>\"}"
    let original = try TinyModel.checkpoint(config)
    try await Places.withTemporaryDirectory { directory in
      let files = [CheckpointFile("tokenizer.json", .text(json)), CheckpointFile("tokenizer_config.json", .text(settings))]
      let model = try Model(original)
      let format = GGUFFormat()
      let writer = try format.makeWriter(into: try StagedDirectory(for: directory.appending(path: "gguf"), overwrite: false), shardLimit: 1)
      let blocks = try model.places.map { try model.part($0) }
      for block in blocks { try await writer.append(try format.encode(block)) }
      let described = try format.configuration(of: blocks.flatMap { format.modules(of: $0) }, in: original.config)
      try await writer.finish(files: [CheckpointFile("config.json", .text(described.text()))] + files)
      let written = try Checkpoint(directory.appending(path: "gguf"))
      let tokenizer = try written.tokenizer()
      #expect(try tokenizer.encode("ab a<|s|>b", addingSpecialTokens: true) == [4, 2, 3, 0, 4, 1])
      #expect(try tokenizer.decode([4, 2, 3, 0], skippingSpecialTokens: true) == "ab a")
      let plain = directory.appending(path: "plain")
      _ = try await Converter(to: PlainFormat()).run(written, to: plain)
      #expect(try Checkpoint(plain).tokenizer().encode("ab a", addingSpecialTokens: true) == [4, 2, 3, 0])
      // And into another GGUF file, whose vocabulary is that of the first.
      let again = directory.appending(path: "again")
      _ = try await Converter(to: GGUFFormat()).run(written, to: again)
      #expect(try Checkpoint(again).tokenizer().encode("ab a", addingSpecialTokens: true) == [4, 2, 3, 0])
    }
  }
}
