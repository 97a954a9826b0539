import TestSupport
import Testing

@testable import CompressKit

/// How many calibration tokens what passes fit needs at least.
@Suite struct FittedWidthTests {
  /// Layers read 32 inputs, the down-projections 64.
  private func width(_ pass: String, _ options: String = "{}") throws -> Int? {
    let recipe = try Recipe(yaml: "passes: [{ \(pass): \(options) }]", file: "r.yaml", passes: .standard)
    return recipe.passes[0].fittedWidth(in: try Pipeline([]).plan(for: TinyModel.model()))
  }

  @Test func theWidestLayerThatIsFittedCounts() throws {
    for pass in ["gptq", "sparsegpt", "lqer", "low_rank", "allocate", "prune_width"] { #expect(try width(pass) == 64, "\(pass)") }
    #expect(try width("gptq", "{ layers: [q_proj, o_proj] }") == 32)
    #expect(try width("gptq", "{ layers: { exclude: [down_proj] } }") == 32)
    // The embedding has no inputs, the head has some.
    #expect(try width("gptq", "{ layers: embed_tokens }") == nil)
    #expect(try width("gptq", "{ layers: lm_head }") == 32)
  }

  @Test func whatFitsToNoSecondMomentAsksForNone() throws {
    for pass in ["rtn", "hqq", "awq", "smoothquant", "wanda", "magnitude", "rotate", "kv_cache", "tune", "distill"] {
      #expect(try width(pass) == nil, "\(pass)")
    }
    #expect(try width("wanda", "{ refit: true }") == 64 && width("magnitude", "{ refit: true }") == 64)
    #expect(try width("low_rank", "{ method: svd, drift_correction: 0 }") == nil)
    #expect(try width("allocate", "{ quantizer: rtn }") == nil)
    #expect(try width("prune_width", "{ compensation: none }") == nil && width("prune_width", "{ axis: heads }") == nil)
    #expect(try width("prune_depth", "{ repair: all }") == 64 && width("prune_depth") == nil)
  }

  @Test func fewTokensAreSaidWithHowManyWouldDo() throws {
    let linears = try Pipeline([]).plan(for: TinyModel.model())
    func remark(_ tokens: Int) -> String? { Compressor.fewTokens(tokens, for: [.gptq(), RoundToNearest()], linears) }
    #expect(remark(63)?.contains("gptq fits linears of up to 64 inputs to 63 tokens, fewer than inputs") == true)
    #expect(remark(64)?.contains("hardly more than inputs; 128 or more would do") == true && remark(127) != nil)
    #expect(remark(128) == nil && remark(0) == nil)
    var narrow = GPTQ()
    narrow.layers = LayerSelector(include: ["q_proj"])
    let both = Compressor.fewTokens(40, for: [narrow, GPTQ()], linears)
    #expect(both?.contains("gptq fits linears of up to 64 inputs to 40 tokens") == true)
  }
}
