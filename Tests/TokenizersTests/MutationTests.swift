import Foundation
import StrictJSON
import Testing

@testable import Tokenizers

/// Damaged files: whatever comes of them is a tokenizer that works or a typed error, and never more memory than the file is worth.
@Suite struct MutationTests {
  /// Executions of each reader; the environment asks for more.
  static let count = ProcessInfo.processInfo.environment["COMPRESS_FUZZ"].flatMap { Int($0) } ?? 200

  static func mutated(_ data: Bytes, _ generator: inout SplitMix) -> Bytes {
    var data = data
    for _ in 0..<Int.random(in: 1...6, using: &generator) where !data.isEmpty {
      let place = Int.random(in: 0..<data.count, using: &generator)
      switch Int.random(in: 0..<7, using: &generator) {
      case 0: data[place] = UInt8.random(in: 0...255, using: &generator)
      case 1: data[place] ^= 1 << UInt8.random(in: 0...7, using: &generator)
      case 2: data.remove(at: place)
      case 3: data.insert(UInt8.random(in: 0...255, using: &generator), at: place)
      case 4: data.removeSubrange(place..<min(data.count, place + Int.random(in: 1...40, using: &generator)))
      case 5:
        let end = min(data.count, place + Int.random(in: 1...40, using: &generator))
        data.insert(contentsOf: data[place..<end], at: Int.random(in: 0...data.count, using: &generator))
      default:
        let digits = Bytes(
          ["-1", "4294967296", "99999999999999999999", "1e308", "null", "[]", "{}", "\"\""].randomElement(using: &generator)!.utf8)
        data.replaceSubrange(place..<min(data.count, place + 1), with: digits)
      }
    }
    return data
  }

  static func use(_ tokenizer: Tokenizer) throws(TokenizerError) {
    let ids = try tokenizer.encode("the <s> ab--a \u{E9}\u{301}\n\u{1F600} 12", addingSpecialTokens: true)
    _ = try tokenizer.decode(ids + [-1, .max, 3], skippingSpecialTokens: true)
  }

  @Test(arguments: GoldenTests.cases.filter { !$0.name.contains("matches") })
  func tokenizerJSON(_ golden: GoldenTests.Case) throws {
    let text = Bytes(golden.tokenizer.text().utf8)
    var generator = SplitMix(state: UInt64(text.count))
    // Most of a file is vocabulary; what comes before it and after is damaged more often.
    for _ in 0..<max(1, Self.count / 10) {
      do {
        try Self.use(try Tokenizer(json: try JSON(parsing: Self.mutated(text, &generator)), configuration: nil))
      } catch is JSONError {} catch is TokenizerError {}
    }
    var parts = golden.tokenizer
    let model = parts["model"]
    parts["model"] = nil
    for _ in 0..<Self.count {
      do {
        var json = try JSON(parsing: Self.mutated(Bytes(parts.text().utf8), &generator))
        json["model"] = model
        try Self.use(try Tokenizer(json: json, configuration: nil))
      } catch is JSONError {} catch is TokenizerError {}
    }
  }

  @Test(arguments: SentencePieceTests.cases)
  func sentencePieceModels(_ golden: SentencePieceTests.Case) throws {
    var generator = SplitMix(state: UInt64(golden.model.count))
    for _ in 0..<Self.count {
      let data = Self.mutated(golden.model, &generator)
      do {
        guard let source = try TokenizerSource(file: { $0 == "tokenizer.model" ? Data(data) : nil }) else { continue }
        try Self.use(try Tokenizer(source))
        _ = try Tokenizer(json: source.document, configuration: nil)
      } catch { let _: TokenizerError = error }
    }
  }

  @Test func ranksAndVocabularies() throws {
    let ranks = Bytes(SourceTests.ranks.utf8)
    let files = SourceTests.wordPieceFiles
    var generator = SplitMix(state: 3)
    for index in 0..<2 * Self.count {
      let name = ["vocab.json", "merges.txt", "tokenizer_config.json", "vocab.txt", "tokenizer.model"][index % 5]
      var damaged =
        name == "vocab.txt" ? files : name == "tokenizer.model" ? ["config.json": #"{"model_type": "llama"}"#] : SourceTests.gpt2Files
      let original = name == "tokenizer.model" ? ranks : Bytes((damaged[name] ?? "").utf8)
      damaged[name] = nil
      let data = Self.mutated(original, &generator)
      do {
        let source = try TokenizerSource { $0 == name ? Data(data) : damaged[$0].map { Data($0.utf8) } }
        if let source { try Self.use(try Tokenizer(source)) }
      } catch { let _: TokenizerError = error }
    }
  }
}
