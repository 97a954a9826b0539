import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Models

/// What depends on where a token stands, besides rotations.
struct AttentionPositionsTests {
  @Test func slopesArePowersOfTwo() {
    func logs(_ heads: Int) -> [Float] { AttentionDescription.slopes(heads: heads).map { -log2($0) } }
    #expect(logs(8) == [1, 2, 3, 4, 5, 6, 7, 8])
    #expect(logs(4) == [2, 4, 6, 8])
    // Those of four heads, and every other one of eight.
    #expect(logs(6) == [2, 4, 6, 8, 1, 3])
    #expect(logs(1) == [8])
  }

  @Test func queriesGrowStretchByStretch() {
    let scale = QueryScale(strength: 0.1, stretch: 8)
    #expect((0..<8).allSatisfy { scale.factor(at: $0) == 1 })
    #expect(abs(scale.factor(at: 8) - (1 + 0.1 * log(2))) < 1e-6 && abs(scale.factor(at: 31) - (1 + 0.1 * log(4))) < 1e-6)
    #expect(QueryScale(strength: 0.1, stretch: 8, shift: 1).factor(at: 7) == scale.factor(at: 8))
  }

  @Test(arguments: [(nil, nil), (3, nil), (nil, 4), (3, 4), (9, 4)] as [(Int?, Int?)])
  func windowsAndChunksLimitWhatIsSeen(window: Int?, chunk: Int?) {
    let reach = AttentionReach(window: window, chunk: chunk)
    for query in 0..<20 {
      let seen = (0...query).filter { key in (window.map { query - key < $0 } ?? true) && (chunk.map { query / $0 == key / $0 } ?? true) }
      #expect(reach.first(of: query) == seen.first)
    }
  }

  /// Scores that fall with distance, over more keys than a tile has queries, against the definition.
  @Test func slopesAreTakenFromTheScores() {
    var attention = AttentionDescription(heads: 4, keyValueHeads: 2, headSize: 8, rotary: nil)
    attention.slopes = AttentionDescription.slopes(heads: 4)
    let tokens = 150
    let queries = Matrix.random(rows: tokens, columns: 32, key: "queries")
    let (keys, values) = (Matrix.random(rows: tokens, columns: 16, key: "keys"), Matrix.random(rows: tokens, columns: 16, key: "values"))
    let found = attention.attend(queries: queries, keys: keys, values: values)
    for query in [0, 1, 77, 128, 149] {
      for head in 0..<4 {
        let slope = pow(2, -2 * Double(head + 1))
        let shared = head / 2 * 8
        let scores = (0...query).map { key in
          let product = (0..<8).reduce(0.0) { $0 + Double(queries[query, head * 8 + $1]) * Double(keys[key, shared + $1]) }
          return exp(product / 8.0.squareRoot() - slope * Double(query - key))
        }
        for channel in 0..<8 {
          let sum = scores.indices.reduce(0.0) { $0 + scores[$1] * Double(values[$1, shared + channel]) } / scores.reduce(0, +)
          #expect(abs(Double(found[query, head * 8 + channel]) - sum) < 1e-5)
        }
      }
    }
  }

  @Test func headsWhoseSlopesFollowFromTheirNumberStay() throws {
    let heads = try #require(try Families.model("bloom").description.blocks[0].heads)
    #expect(heads.obstacle?.contains("how fast the scores of a head fall") == true)
  }

  @Test(arguments: [("llama4", "attention_chunk_size"), ("llama4", "floor_scale")]) func stretchesOfNothingAreRefused(
    family: String, key: String
  ) throws {
    var config = try ModelConfig(text: Families.configuration(family).utf8)
    config.json[key] = .integer(0)
    #expect(throws: CheckpointError.self) { try ArchitectureCatalog.standard.describe(config) }
  }
}
