import Foundation
import StrictJSON
import Testing

@testable import Tokenizers

/// Tokenizers in use, on texts and ids that llama.cpp publishes; the files are not part of the repository, so these tests may be skipped.
@Suite struct ConformanceTests {
  static let vocabularies = "tokenizers/gguf_vocab/"

  /// Compares texts, separated by lines of their own, with ids, one line a text, made without special tokens.
  static func check(_ tokenizer: Tokenizer, _ name: String) throws {
    let separator = Array("\n__ggml_vocab_test__\n".utf8)
    var texts: [Bytes] = [[]]
    let input = Bytes(try Assets.text("\(vocabularies)ggml-vocab-\(name).gguf.inp").utf8)
    var position = 0
    while position < input.count {
      if input[position...].starts(with: separator) {
        texts.append([])
        position += separator.count
      } else {
        texts[texts.count - 1].append(input[position])
        position += 1
      }
    }
    let lines = try Assets.text("\(vocabularies)ggml-vocab-\(name).gguf.out").split(separator: "\n", omittingEmptySubsequences: false)
    #expect(texts.count > 40 && lines.count >= texts.count)
    for (text, line) in zip(texts, lines) {
      let string = String(decoding: text, as: UTF8.self)
      #expect(try tokenizer.encode(string, addingSpecialTokens: false) == line.split(separator: " ").compactMap { Int32($0) }, "\(string)")
    }
  }

  @Test(
    .enabled(if: Assets.has("tokenizers/gpt2/tokenizer.json", "\(vocabularies)ggml-vocab-gpt-2.gguf.inp"), "shared assets are absent"))
  func gpt2() throws {
    try Self.check(try Tokenizer(directory: Assets.url("tokenizers/gpt2")), "gpt-2")
  }

  @Test(
    .enabled(if: Assets.has("tokenizers/llama2/tokenizer.json", "\(vocabularies)ggml-vocab-llama-spm.gguf.inp"), "shared assets are absent")
  )
  func llama2() throws {
    let tokenizer = try Tokenizer(directory: Assets.url("tokenizers/llama2"))
    #expect(tokenizer.prefix == [1] && tokenizer.vocabularySize == 32000)
    try Self.check(tokenizer, "llama-spm")
  }

  @Test(
    .enabled(if: Assets.has("tokenizers/phi3/tokenizer.json", "\(vocabularies)ggml-vocab-phi-3.gguf.inp"), "shared assets are absent"))
  func phi3() throws {
    try Self.check(try Tokenizer(directory: Assets.url("tokenizers/phi3")), "phi-3")
  }

  /// From vocab.json and merges.txt.
  @Test(
    .enabled(if: Assets.has("tokenizers/qwen2/vocab.json", "\(vocabularies)ggml-vocab-qwen2.gguf.inp"), "shared assets are absent"))
  func qwen2() throws {
    let tokenizer = try Tokenizer(directory: Assets.url("tokenizers/qwen2"))
    try Self.check(tokenizer, "qwen2")
    #expect(try tokenizer.encode("<|im_start|>", addingSpecialTokens: true) == [151644] && tokenizer.vocabularySize == 151646)
  }

  @Test(
    .enabled(if: Assets.has("tokenizers/gpt2/vocab.json", "\(vocabularies)ggml-vocab-gpt-2.gguf.inp"), "shared assets are absent"))
  func gpt2FromVocabularyAndMerges() throws {
    let files = ["vocab.json", "merges.txt"]
    let source = try TokenizerSource { name throws(TokenizerError) in
      if name == "config.json" { return Data(#"{"model_type": "gpt2"}"#.utf8) }
      return files.contains(name) ? try? Data(contentsOf: Assets.url("tokenizers/gpt2/\(name)")) : nil
    }
    let tokenizer = try Tokenizer(try #require(source))
    try Self.check(tokenizer, "gpt-2")
    #expect(try tokenizer.encode("<|endoftext|>", addingSpecialTokens: true) == [50256])
  }

  static func source(_ file: String) throws -> TokenizerSource {
    let data = try Data(contentsOf: Assets.url(file))
    return try #require(try TokenizerSource { $0 == "tokenizer.model" ? data : nil })
  }

  /// tiktoken's file, and what tokenizer.json would say of it.
  @Test(
    .enabled(
      if: Assets.has("tokenizers/llama3/tokenizer.model", "\(vocabularies)ggml-vocab-llama-bpe.gguf.inp"), "shared assets are absent"))
  func llama3() throws {
    let source = try Self.source("tokenizers/llama3/tokenizer.model")
    let tokenizer = try Tokenizer(source)
    #expect(tokenizer.prefix == [128000] && tokenizer.vocabularySize == 128256)
    try Self.check(tokenizer, "llama-bpe")
    // The number of merges that the published tokenizer.json has.
    #expect(source.document["model"]?["merges"]?.elements?.count == 280147)
    try Self.check(try Tokenizer(json: source.document, configuration: nil), "llama-bpe")
  }

  @Test(
    .enabled(
      if: Assets.has("tokenizers/llama2/tokenizer.model", "\(vocabularies)ggml-vocab-llama-spm.gguf.inp"), "shared assets are absent"))
  func llama2FromSentencePiece() throws {
    let source = try Self.source("tokenizers/llama2/tokenizer.model")
    let tokenizer = try Tokenizer(source)
    #expect(tokenizer.prefix == [1] && tokenizer.vocabularySize == 32000)
    try Self.check(tokenizer, "llama-spm")
    #expect(try tokenizer.encode("a</s> b", addingSpecialTokens: true) == [1, 263, 2, 29871, 289])
    let own = source.document["model"]
    let published = try Assets.json("tokenizers/llama2/tokenizer.json")["model"]
    #expect(own?["merges"]?.elements?.count == published?["merges"]?.elements?.count && own?["vocab"] == published?["vocab"])
    try Self.check(try Tokenizer(json: source.document, configuration: nil), "llama-spm")
  }

  @Test(.enabled(if: Assets.has("models/stories260K/tok512.model", "text/tinyshakespeare/input.txt"), "shared assets are absent"))
  func stories() throws {
    let text = String(try Assets.text("text/tinyshakespeare/input.txt").prefix(100_000))
    let ids = try Tokenizer(try Self.source("models/stories260K/tok512.model")).encode(text, addingSpecialTokens: true)
    #expect(try ids == Tokenizer(directory: Assets.url("models/stories260K/hf")).encode(text, addingSpecialTokens: true))
  }

  /// Text survives wherever no normalizer changes it.
  @Test(
    .enabled(if: Assets.has("text/exllamav3_cal/multilingual.utf8", "tokenizers/gpt2/tokenizer.json"), "shared assets are absent"),
    arguments: [
      "tokenizers/gpt2/tokenizer.json", "tokenizers/llama2/tokenizer.json", "tokenizers/phi3/tokenizer.json",
      "models/pocket-llama/tokenizer.json",
    ])
  func roundTrip(_ path: String) throws {
    let tokenizer = try Tokenizer(json: try Assets.json(path), configuration: nil)
    let text = try Assets.text("text/exllamav3_cal/multilingual.utf8")
    let back = try tokenizer.decode(try tokenizer.encode(text, addingSpecialTokens: false), skippingSpecialTokens: false)
    #expect(back.utf8.elementsEqual(text.utf8))
  }

  @Test(.enabled(if: Assets.has("tokenizers/gpt_neox/20B_tokenizer.json"), "shared assets are absent"))
  func gptNeoX() throws {
    let tokenizer = try Tokenizer(json: try Assets.json("tokenizers/gpt_neox/20B_tokenizer.json"), configuration: nil)
    // Ids made with tokenizers 0.23.3.
    let text = "def f(x):\n        return  x<|endoftext|>  \u{C5}A\u{30A}"
    let ids: [Int32] = [1545, 269, 9, 89, 2262, 187, 50270, 2309, 50276, 89, 0, 50276, 18221, 18221]
    #expect(try tokenizer.encode(text, addingSpecialTokens: true) == ids)
    #expect(tokenizer.vocabularySize == 50277)
  }
}
