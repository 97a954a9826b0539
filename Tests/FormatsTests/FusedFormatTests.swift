import Foundation
import TestSupport
import Testing

@testable import CompressKit

/// Linears that runtimes compute as one get one format.
struct FusedFormatTests {
  private func compressor(_ passes: String, _ output: String = "", strict: Bool = false) throws -> Compressor {
    Compressor(
      recipe: try Recipe(
        yaml: "calibration: { tokens: t.npy }\npasses: [ \(passes) ]\noutput: { \(output) }", file: "r.yaml", passes: .standard),
      strict: strict)
  }

  @Test(arguments: Families.allMixtures) func groupsFollowFromTheDescription(_ family: String) throws {
    let block = try #require(try Families.model(family).description.blocks.last)
    let experts = try #require(block.feedForward?.mixture).experts
    let mixers = block.mixers.flatMap(\.fusedLinears)
    #expect(Array(block.fusedGroups.prefix(mixers.count)) == mixers)
    if let attention = block.attention { #expect(mixers == [attention.projections.linears]) }
    let groups = block.fusedGroups.dropFirst(mixers.count)
    #expect(groups.first?.count == 3 * experts && groups.first == block.routedExperts)
    #expect(block.expertProjections.map(\.count) == [2 * experts, experts])
    let shared = block.feedForward?.mixture?.shared.flatMap { _ in block.feedForward?.expert(experts).readers.count } ?? 0
    #expect(groups.count == (shared == 2 ? 2 : 1))
    #expect(Set(block.fusedGroups.flatMap { $0 }).count == block.fusedGroups.reduce(0) { $0 + $1.count })
  }

  @Test(arguments: [
    ("{ rtn: { group_size: 16, overrides: [{ layers: q_proj, bits: 8 }] } }", "self_attn.q_proj int8 g16"),
    ("{ rtn: { group_size: 16, layers: { exclude: [k_proj] } } }", "self_attn.k_proj dense"),
    (
      "{ rtn: { group_size: 16, overrides: [{ layers: 're:.*experts\\.1\\.w2', bits: 8 }] } }", "block_sparse_moe.experts.1.w2 int8 g16"
    ),
    ("{ rtn: { group_size: 16, layers: { exclude: ['experts.3.*'] } } }", "block_sparse_moe.experts.3.w1"),
    ("{ rtn: { group_size: 16, overrides: [{ layers: w3, group_size: 32 }] } }", "int4 g32"),
    (
      "{ rtn: { group_size: 16, overrides: [{ layers: v_proj, activations: int8, bits: 8, group_size: channel }] } }",
      "with int8 token inputs"
    ),
  ])
  func whatSplitsThemIsRefusedUnlessAllowed(_ passes: String, _ words: String) throws {
    let checkpoint = try TinyModel.checkpoint(try Families.configuration("mixtral"), dtype: .bfloat16)
    let error = #expect(throws: MixedFormats.self) { try compressor(passes).plan(checkpoint) }
    #expect(
      error?.description.contains(words) == true && error?.description.contains("output.mixed_groups: allow") == true,
      "\(String(describing: error))")
    let plan = try compressor(passes, "mixed_groups: allow").plan(checkpoint)
    #expect(plan.remarks.contains { $0.contains("in unlike formats, as output.mixed_groups allows") && $0.contains(words) })
    // Runtimes of dense weights fuse nothing that could differ.
    _ = try compressor(passes.replacing("activations: int8, ", with: ""), "format: safetensors").plan(checkpoint)
  }

  /// vLLM runs a mixture in one format; transformers reads the experts of all mixtures as one.
  @Test(arguments: ["overrides: [{ layers: w2, bits: 8 }]", "layers: { exclude: ['layers.0.*experts*'] }"])
  func mixturesAreInOneFormat(_ options: String) throws {
    let checkpoint = try TinyModel.checkpoint(try Families.configuration("mixtral"), dtype: .bfloat16)
    let passes = "{ rtn: { group_size: 16, \(options) } }"
    #expect(throws: MixedFormats.self) { try compressor(passes).plan(checkpoint) }
    _ = try compressor(passes, "mixed_groups: allow").plan(checkpoint)
    _ = try compressor(passes.replacing("group_size: 16", with: "group_size: 32"), "format: mlx").plan(checkpoint)
  }

  @Test func wholeProjectionsAndBlocksMayDiffer() throws {
    let checkpoint = try TinyModel.checkpoint(try Families.configuration("mixtral"), dtype: .bfloat16)
    for passes in [
      "{ rtn: { group_size: 16, overrides: [{ layers: ['*experts*', o_proj], bits: 8 }] } }",
      "{ rtn: { group_size: 16, layers: { exclude: ['layers.0.self_attn.*'] } } }", "{ rtn: { group_size: 16, layers: self_attn.* } }",
    ] { #expect(try !compressor(passes).plan(checkpoint).linears.isEmpty) }
  }

  @Test(arguments: Families.allMixtures, ["kl", "layer"]) func allocateGivesExpertsOneFormat(
    _ family: String, _ sensitivity: String
  )
    async throws
  {
    let recipe = try Recipe(
      yaml:
        "passes: [ { allocate: { target: 6bpw, sensitivity: \(sensitivity), probes: 2, candidates: [{ bits: 2, group_size: 16 }, { bits: 4, group_size: 16 }, { bits: 8, group_size: 16 }] } } ]",
      file: "r.yaml", passes: .standard)
    let model = try Families.model(family, dtype: .bfloat16)
    let sink = CheckpointSink(format: .compressedTensors, writer: nil)
    let report = try await Pipeline(recipe.passes).run(
      on: model, options: SweepOptions(calibration: TinyModel.sequences(6, length: 16)), into: sink)
    let modules = await sink.modules
    #expect(Fusion.all.mixedGroups(of: model.description, in: modules).isEmpty)
    #expect(Set(modules.compactMap(\.scheme)).count > 1, "all formats alike show nothing")
    #expect(report.remarks.first?.contains("of \(model.description.blocks.last?.feedForward?.mixture?.experts ?? 0) experts") == true)
    // transformers 5.24 reads all experts by the first group with a pattern that says so (findings/transformers-experts-scheme.sh).
    let config = try ModelConfig(text: Families.configuration(family).utf8)
    let written = try CompressedTensorsFormat().configuration(of: modules, in: config)
    let groups = (written["quantization_config"]?["config_groups"]?.members ?? []).map(\.value)
    let own = groups.filter { $0["targets"]?.elements?.contains { $0.string == #"re:.*\.experts\..*"# } == true }
    let scheme = try #require(modules.first { $0.name.contains(".experts.") }?.scheme)
    #expect(groups.count > 1 && own.count == 1 && own.first?["weights"]?["num_bits"]?.integer == scheme.bits)
  }
}
