import CompressKit
import Foundation
import TestSupport
import Testing

/// Presets that KerasHub wrote, run here: its logits and ours.
struct KerasHubTests {
  private struct Fixture: Decodable { let tokens: [Int32], logits: [[Float]] }

  @Test(arguments: ["kerashub-llama3", "kerashub-gemma"]) func theSameLogits(_ name: String) throws {
    let preset = Places.root.appending(path: "Tests/CheckpointIOTests/Fixtures/\(name)")
    let fixture = try JSONDecoder().decode(Fixture.self, from: try Data(contentsOf: preset.appending(path: "logits.json")))
    let logits = try Model(try Checkpoint(preset)).logits(of: fixture.tokens)
    for (row, expected) in fixture.logits.enumerated() {
      for (column, value) in expected.enumerated() { #expect(abs(logits[row, column] - value) < 1e-4) }
    }
  }
}
