import CompressKit
import Foundation
import TestSupport
import Testing

/// Whole forward passes against logits, or the hidden states of encoders, computed by transformers.
struct LogitsTests {
  private static let llamas = [
    "llama-plain", "llama-gqa-llama3-rope", "llama-linear-rope-biases", "llama-tied-head-dim", "mistral-window", "mistral-no-window",
    "qwen2-tied", "qwen2-window", "qwen3", "qwen3-tied-window",
  ]

  @Test(arguments: llamas + Families.names)
  func agreesWithTransformers(_ name: String) throws {
    let url = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures"))
    let fixture = try JSON(parsing: Data(contentsOf: url))
    let model = try TinyModel.model(try #require(fixture["config"]).text())
    if let names = fixture["tensors"]?.elements?.compactMap(\.string) {
      #expect(Set(model.description.tensorShapes.map(\.name)) == Set(names))
    }
    let tokens = try #require(fixture["input_ids"]?.elements).map { Int32(try #require($0.integer)) }
    let rows = try #require((fixture["logits"] ?? fixture["hidden_states"])?.elements).map {
      try #require($0.elements).map { Float(try #require($0.double)) }
    }
    let tolerance = Float(try #require(fixture["tolerance"]?["absolute"]?.double))
    let outputs = try model.outputs(of: tokens)
    #expect(outputs.rows == rows.count)
    let worst = zip(outputs.elements, rows.joined()).reduce(Float(0)) { max($0, abs($1.0 - $1.1)) }
    #expect(worst <= tolerance, "\(name) differs by \(worst)")
    // A change the tolerance must not hide: the fixtures are no constant.
    #expect(zip(rows[0], rows[1]).contains { abs($0 - $1) > 100 * tolerance })
  }

  private static let stories = "models/stories260K"

  @Test(.enabled(if: Places.hasAsset(stories))) func aRealModelAgreesWithItsGoldenLogits() throws {
    let golden = try JSON(parsing: Data(contentsOf: Places.asset(Self.stories + "/golden.json")))
    let model = try Model(try Checkpoint(Places.asset(Self.stories + "/hf")))
    func tokens(_ key: String) throws -> [Int32] { try #require(golden[key]?.elements).map { Int32(try #require($0.integer)) } }
    let prompt = try tokens("prompt_ids")
    let logits = try model.logits(of: prompt)
    let expected = try #require(golden["last_logits"]?.elements).map { Float(try #require($0.double)) }
    let last = logits.rows(prompt.count - 1..<prompt.count).elements
    #expect(zip(last, expected).reduce(Float(0)) { max($0, abs($1.0 - $1.1)) } < 5e-5)
    // Greedy continuation, judged in one pass: every token is the most likely one after those before it.
    let story = try tokens("greedy_80_ids")
    let all = try model.logits(of: prompt + story)
    for (offset, token) in story.enumerated() {
      let row = all.rows(prompt.count - 1 + offset..<prompt.count + offset).elements
      #expect(row.firstIndex(of: row.max()!) == Int(token), "token \(offset)")
    }
  }
}
