import CompressKit
import Foundation
import TestSupport
import Testing

/// Mixtures whose router never chooses some experts: what is calibrated on nothing has a defined result, which the report counts.
struct UnreachedExpertTests {
  private static let sequences = TinyModel.sequences(6, length: 16)

  /// Routers that score all experts alike send every token to the first two of four.
  private func model(_ family: String) throws -> Model {
    var checkpoint = try EditableCheckpoint(try Families.configuration(family))
    for (name, tensor) in checkpoint.tensors
    where tensor.shape.first == 4 && tensor.shape.count == 2 && ["gate.weight", "router.proj.weight"].contains(where: name.hasSuffix) {
      checkpoint[name] = Tensor([Float](repeating: 0, count: tensor.elementCount), shape: tensor.shape, dtype: tensor.dtype)
    }
    return try checkpoint.model()
  }

  private actor Parts: PartSink {
    var parts: [any ModelPart] = []
    func append(_ part: any ModelPart) { parts.append(part) }
  }

  private func sweep(
    _ passes: String, _ model: Model, strict: Bool = false
  ) async throws -> (blocks: [Block], report: Report) {
    let recipe = try Recipe(yaml: "passes: [ \(passes) ]", file: "r.yaml", passes: .standard)
    let sink = Parts()
    let report = try await Pipeline(recipe.passes).run(
      on: model, options: SweepOptions(calibration: Self.sequences, strict: strict), into: sink)
    return (await sink.parts.decoders.filter { $0.description.feedForward?.mixture != nil }, report)
  }

  /// The linears of experts 2 and 3, and of 0 and 1.
  private func experts(of block: Block) throws -> (unreached: [LinearName], reached: [LinearName]) {
    let feedForward = try #require(block.description.feedForward)
    func linears(_ experts: Range<Int>) -> [LinearName] {
      experts.flatMap { feedForward.expert($0).readers + [feedForward.expert($0).down] }
    }
    return (linears(2..<4), linears(0..<2))
  }

  @Test(
    arguments: [
      ("rtn: { group_size: 16, activations: fp8_static }", "the scale of its input is for the largest inputs of all experts"),
      ("rtn: { group_size: 16, importance: activations }", "searched unweighted"),
      ("rtn: { numbers: nvfp4, activations: nvfp4 }", "the scale of its input"),
      ("hqq: { group_size: 16, activations: int8_static }", "the scale of its input"),
      ("gptq: { group_size: 16 }", "rounded to nearest"), ("gptq: { group_size: 16, drift_correction: 0.5 }", "rounded to nearest"),
      ("wanda: { sparsity: 0.5 }", "pruned by magnitude"), ("wanda: { pattern: '2:4', refit: true }", "pruned by magnitude"),
      ("wanda: { sparsity: 0.5, allocation: owl }", "its outliers do not count"), ("magnitude: { refit: true }", "not refitted"),
      ("sparsegpt: { sparsity: 0.5 }", "pruned by magnitude"),
      ("sparsegpt: { pattern: '2:4', quantize: { numbers: int, group_size: 16 } }", "pruned by magnitude, and rounded to nearest"),
      ("low_rank: { ratio: 0.3 }", "plain SVD"), ("low_rank: { ratio: 0.3, method: asvd }", "plain SVD"),
      ("low_rank: { ratio: 0.3, sequential: false }", "plain SVD"), ("rtn: { group_size: 16 }, lqer: { rank: 4 }", "plain SVD"),
      ("ggml: { type: q4_0, importance: activations, layers: '*' }", "without importances"),
      ("smoothquant: { strength: 0.5, producers: all }", "left unscaled"), ("awq, rtn: { group_size: 16 }", "left unscaled"),
      ("allocate: { target: 7bpw, sensitivity: layer, candidates: [{ bits: 4, group_size: 16 }, { bits: 8, group_size: 16 }] }", "rounded"),
    ], ["mixtral", "qwen2-moe"])
  func everyFallbackIsNamedAndStrictRefusesIt(_ passes: (text: String, words: String), _ family: String) async throws {
    let text = passes.text.replacing(", lqer", with: " }, { lqer").replacing("awq, rtn", with: "awq: {} }, { rtn")
    let list = "{ \(text) }"
    let model = try model(family)
    let (blocks, report) = try await sweep(list, model)
    for block in blocks {
      let scaled = passes.words == "left unscaled"
      for name in try experts(of: block).unreached {
        // Experts read what their norm gives all of them; only between their own two layers is a scale of their own.
        if scaled, name != block.description.feedForward!.expert(2).down, name != block.description.feedForward!.expert(3).down {
          continue
        }
        let full = block.fullName(of: name)
        #expect(report.fallbacks.contains { $0.layer == full && $0.fallback!.contains(passes.words) }, "\(full)")
        let dense = block[name].weight.dense().elements
        #expect(dense.allSatisfy(\.isFinite) && dense.contains { $0 != 0 })
        if let scale = block[name].inputQuantization?.scale { #expect(scale.isFinite && scale > 1e-6 && scale < 1e6) }
      }
      for name in try experts(of: block).reached {
        let full = block.fullName(of: name)
        #expect(!report.fallbacks.contains { $0.layer == full && $0.fallback!.contains("no calibration token") }, "\(full)")
      }
    }
    await #expect {
      _ = try await sweep(list, model, strict: true)
    } throws: {
      (($0 as? PipelineError)?.cause as? UnwantedFallback)?.reason.contains("no calibration token") == true
    }
  }

  /// Whether experts read what the router reads or what a norm of their own makes.
  @Test(arguments: ["mixtral", "gemma4-moe"]) func staticScalesAreThoseOfTheLargestInputsBeside(_ family: String) async throws {
    let (blocks, _) = try await sweep("{ rtn: { group_size: 16, activations: fp8_static } }", try model(family))
    for block in blocks {
      let feedForward = try #require(block.description.feedForward)
      func scale(_ name: LinearName) throws -> Float { try #require(block[name].inputQuantization?.scale) }
      for part in [\FeedForwardLinears.readers[0], \.readers[1], \.down] {
        let reached = try max(scale(feedForward.expert(0)[keyPath: part]), scale(feedForward.expert(1)[keyPath: part]))
        for expert in 2..<4 { #expect(try scale(feedForward.expert(expert)[keyPath: part]) == reached) }
      }
    }
  }

  @Test func whatReplacesAStatisticIsWhatNeedsNone() async throws {
    let model = try model("mixtral")
    for (calibrated, plain) in [
      ("gptq: { group_size: 16, scales: clip }", "rtn: { group_size: 16 }"),
      ("rtn: { group_size: 16, importance: activations }", "rtn: { group_size: 16 }"),
      ("wanda: { sparsity: 0.5 }", "magnitude: { sparsity: 0.5, comparison: row }"),
      ("sparsegpt: { sparsity: 0.5 }", "magnitude: { sparsity: 0.5, comparison: row }"),
      ("low_rank: { ratio: 0.3, share: never }", "low_rank: { ratio: 0.3, share: never, method: svd }"),
      ("ggml: { type: q4_0, importance: activations, layers: '*' }", "ggml: { type: q4_0, layers: '*' }"),
    ] {
      let (blocks, _) = try await sweep("{ \(calibrated) }", model)
      let (others, _) = try await sweep("{ \(plain) }", model)
      for (block, other) in zip(blocks, others) {
        for name in try experts(of: block).unreached {
          #expect(block[name].weight.dense().distance(to: other[name].weight.dense()) < 1e-5, "\(calibrated) \(name)")
        }
      }
    }
  }

  @Test func whatIsRoundedStaysInTheFormatOfItsSiblings() async throws {
    for pass in ["gptq: { numbers: nvfp4, activations: nvfp4 }", "sparsegpt: { quantize: { numbers: nvfp4 } }"] {
      let (blocks, _) = try await sweep("{ \(pass) }", try model("mixtral"))
      for block in blocks {
        let all = try experts(of: block)
        let kinds = Set(
          (all.reached + all.unreached).map { name in
            "\(String(describing: (block[name].weight as? QuantizedMatrix)?.scheme)) \(block[name].inputQuantization != nil)"
          })
        #expect(kinds.count == 1 && kinds.first?.contains("nil") == false, "\(kinds)")
        // Gate and up of an expert have one global scale.
        for expert in 0..<4 {
          let readers = try #require(block.description.feedForward).expert(expert).readers
          #expect(Set(readers.map { (block[$0].weight as? QuantizedMatrix)?.globalScale }).count == 1)
        }
      }
    }
  }

  @Test func expertsWithoutTokensGoFirst() async throws {
    let (blocks, report) = try await sweep("{ prune_experts: { experts: 3 } }", try model("mixtral"))
    for block in blocks {
      let router = block.fullName(of: try #require(block.description.feedForward?.mixture).router)
      let record = try #require(report.layers.first { $0.layer == router })
      #expect(record.fallback?.contains("no calibration token was sent to 2 of 4 experts") == true)
      #expect(record.scheme?.hasPrefix("3 of 4 experts: 0 1 ") == true)
    }
  }
}
