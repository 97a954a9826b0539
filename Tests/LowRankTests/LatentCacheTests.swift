import CompressKit
import Foundation
import TestSupport
import Testing

struct LatentCacheTests {
  @Test(arguments: [1, 2]) func everyProjectionLosesTheTailOfItsSpectrum(_ heads: Int) async throws {
    let (blocks, report) = try await sweep(
      "{ kv_latents: { weighted: false, heads_per_group: \(heads), rank_multiple: 1, values: 0.75 } }", try TinyModel.model())
    #expect(report.fallbacks.isEmpty)
    for block in blocks {
      for (name, share) in [("self_attn.k_proj", 0.5), ("self_attn.v_proj", 0.75)] as [(LinearName, Double)] {
        let factors = try #require(block[name].weight as? FactoredWeight)
        #expect(factors.groups == 2 / heads && factors.rank == Int(share * 8) * heads && factors.latents == Int(share * 16))
        let metrics = try #require(report.layers.first { $0.layer == block.fullName(of: name) }).metrics
        #expect(abs(metrics["relative_layer_loss"]! / metrics["spectral_tail"]! - 1) < 1e-4, "\(metrics)")
      }
      #expect(block["self_attn.q_proj"].weight is StoredWeight)
      let cache = try #require(report.layers.first { $0.layer == block.name }).metrics
      #expect(cache["cache_bytes_per_token_before"] == 128 && cache["cache_bytes_per_token"] == 80)
    }
  }

  @Test func nothingIsLostWhereTheKeysHaveNoMoreDimensions() async throws {
    let base = try TinyModel.model()
    // Keys and values that lie in half of the dimensions of each head.
    let model = Model(description: base.description) { place in
      guard case .decoder(let index) = place else { return try base.part(place) }
      var block = try base.block(index)
      for name in ["self_attn.k_proj", "self_attn.v_proj"] as [LinearName] {
        let weight = block[name].weight.dense()
        let thin = Matrix.random(rows: 16, columns: 4, key: "thin \(name)", scale: 0.3)
        block[name].weight = Matrix(
          stacking: (0..<2).map { head in
            thin.rows(head * 8..<(head + 1) * 8).times(transposed: weight.rows(head * 8..<head * 8 + 4).transposed())
          })
      }
      return block
    }
    let (blocks, _) = try await sweep("{ kv_latents: { heads_per_group: 1, rank_multiple: 1 } }", model)
    for index in 0..<2 {
      let original = try model.block(index)
      for name in ["self_attn.k_proj", "self_attn.v_proj"] as [LinearName] {
        let (before, after) = (original[name].weight.dense(), blocks[index][name].weight.dense())
        for (a, b) in zip(before.elements, after.elements) { #expect(abs(a - b) < 1e-4) }
      }
    }
  }

  @Test func errorsAreWeighedAsTheyWillBeSeen() async throws {
    let model = try TinyModel.model()
    func error(_ weighted: Bool) async throws -> Double {
      let (blocks, _) = try await sweep("{ kv_latents: { weighted: \(weighted), rank_multiple: 1 } }", model)
      let table = try model.embedding()["embed_tokens"].weight.dense()
      let block = try model.block(0)
      return try TinyModel.sequences(8, length: 48).reduce(0) { sum, sequence in
        let start = Matrix(rows: 48, columns: 32, elements: sequence.flatMap { table.rows(Int($0)..<Int($0) + 1).elements })
        let (own, other) = (
          try PreparedBlock(blocks[0], positions: 48).forward(start), try PreparedBlock(block, positions: 48).forward(start)
        )
        return sum + zip(own.elements, other.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
      }
    }
    let (weighted, plain) = (try await error(true), try await error(false))
    #expect(weighted < plain, "\(weighted) \(plain)")
  }
}
