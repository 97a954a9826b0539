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
      #expect(tokenizer.encode(string, addingSpecialTokens: false) == line.split(separator: " ").compactMap { Int32($0) }, "\(string)")
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

  /// There is no tokenizer.json of this family, so the test puts one together.
  @Test(
    .enabled(if: Assets.has("tokenizers/qwen2/vocab.json", "\(vocabularies)ggml-vocab-qwen2.gguf.inp"), "shared assets are absent"))
  func qwen2() throws {
    let lines = try Assets.text("tokenizers/qwen2/merges.txt").split(separator: "\n")
    let model = JSON.object([
      JSON.Member("type", .string("BPE")), JSON.Member("vocab", try Assets.json("tokenizers/qwen2/vocab.json")),
      JSON.Member("merges", .array(lines.map { .string(String($0)) })),
    ])
    let split = JSON.object([
      JSON.Member("type", .string("Split")), JSON.Member("behavior", .string("Isolated")),
      JSON.Member("pattern", .object([JSON.Member("Regex", .string(PreTokenizerTests.qwen))])),
    ])
    let bytes = try JSON(parsing: #"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}"#)
    let steps = JSON.object([JSON.Member("type", .string("Sequence")), JSON.Member("pretokenizers", .array([split, bytes]))])
    let json = JSON.object([
      JSON.Member("normalizer", try JSON(parsing: #"{"type": "NFC"}"#)), JSON.Member("pre_tokenizer", steps),
      JSON.Member("decoder", bytes), JSON.Member("model", model),
    ])
    try Self.check(try Tokenizer(json: json, configuration: nil), "qwen2")
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
    let back = tokenizer.decode(tokenizer.encode(text, addingSpecialTokens: false), skippingSpecialTokens: false)
    #expect(back.utf8.elementsEqual(text.utf8))
  }

  @Test(.enabled(if: Assets.has("tokenizers/gpt_neox/20B_tokenizer.json"), "shared assets are absent"))
  func gptNeoX() throws {
    let tokenizer = try Tokenizer(json: try Assets.json("tokenizers/gpt_neox/20B_tokenizer.json"), configuration: nil)
    // Ids made with tokenizers 0.23.3.
    let text = "def f(x):\n        return  x<|endoftext|>  \u{C5}A\u{30A}"
    let ids: [Int32] = [1545, 269, 9, 89, 2262, 187, 50270, 2309, 50276, 89, 0, 50276, 18221, 18221]
    #expect(tokenizer.encode(text, addingSpecialTokens: true) == ids)
    #expect(tokenizer.vocabularySize == 50277)
  }
}
