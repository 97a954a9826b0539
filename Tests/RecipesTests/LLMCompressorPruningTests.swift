import CompressKit
import Testing

@Suite struct LLMCompressorPruningTests {
  private func passes(_ modifier: String) throws -> [any Pass] {
    try Dialect.read(Dialect.stage(modifier)).passes
  }

  @Test func masksAreSpelledTheOtherWayRound() throws {
    let passes = try passes(
      "SparseGPTModifier: { sparsity: 0.75, mask_structure: '3:4', dampening_frac: 0.02, block_size: 64, targets: [Linear], ignore: ['re:.*lm_head'] }"
    )
    let pass = try #require(passes.first as? SparseGPT)
    #expect(passes.count == 1 && pass.pattern == .grouped(kept: 1, group: 4) && pass.damping == 0.02 && pass.blockSize == 64)
    #expect(!pass.refit && pass.driftCorrection == 0 && pass.order == .natural)
    #expect(pass.layers == LayerSelector(include: ["*"], exclude: ["re:.*lm_head"]))
  }

  @Test func sharesAndProfiles() throws {
    let wanda = try #require(
      passes("WandaPruningModifier: { sparsity: 0.6, sparsity_profile: owl, owl_m: 5, owl_lmbda: 0.05, mask_structure: '0:0' }").first
        as? Wanda)
    #expect(wanda.sparsity == 0.6 && wanda.pattern == .unstructured && wanda.allocation == .owl)
    #expect(wanda.owlThreshold == 5 && wanda.owlLimit == 0.05 && !wanda.refit && wanda.comparison == .row)
    // Nothing is ignored, so the head is pruned as well.
    #expect(wanda.layers == LayerSelector(include: ["*", "lm_head"]))
  }

  @Test(arguments: [
    ("WandaPruningModifier: {}", "sparsity is needed"), ("SparseGPTModifier: { mask_structure: 4:4 }", "more than none"),
    ("SparseGPTModifier: { mask_structure: half }", "N:M is needed"), ("WandaPruningModifier: { sparsity: [0.5, 0.6] }", "one number"),
    ("WandaPruningModifier: { sparsity: 0.5, targets: [model.layers.0] }", "only Linear"),
    ("WandaPruningModifier: { sparsity: 0.5, block_size: 128 }", "block_size"),
    ("SparseGPTModifier: { sparsity: 0.5, preserve_sparsity_mask: true }", "are not kept"),
    ("SparseGPTModifier: { sparsity: 0.5, sparsity_profile: erk }", "owl"),
  ])
  func mistakesHaveTheirPlace(modifier: String, words: String) {
    let error = #expect(throws: RecipeError.self) { try passes(modifier) }
    #expect(error?.description.contains(words) == true && error?.line == 3, "\(error?.description ?? "")")
  }
}
