import CompressKit
import TestSupport
import Testing

struct DistillTests {
  private static let rounding = "{ rtn: { bits: 2, group_size: 16 } }"

  @Test(arguments: ["forward_kl", "reverse_kl", "jsd"]) func scalesLearnToPredict(_ loss: String) async throws {
    let model = try TinyModel.model()
    let rounded = try await Swept(Self.rounding, model)
    let swept = try await Swept(
      "\(Self.rounding), { distill: { loss: \(loss), epochs: 8, batch: 2, scale_rate: 0.01, rate: 0.01, validate_every: 4 } }", model)
    let (before, after) = (try rounded.divergence(from: model), try swept.divergence(from: model))
    #expect(after < 0.95 * before, "\(after) against \(before)")
    for (old, new) in zip(try rounded.blocks(), try swept.blocks()) {
      for (name, linear) in new.linears {
        let (new, old) = (linear.weight as! QuantizedMatrix, old[name].weight as! QuantizedMatrix)
        #expect(new.codes == old.codes)
      }
    }
    let record = try #require(swept.report.training.first)
    #expect(
      record.curve.count >= 8 && zip(record.curve, record.curve.dropFirst()).allSatisfy { $0.step < $1.step && $0.tokens < $1.tokens })
    #expect(
      record.lossAfter < record.lossBefore && record.curve.contains { $0.step == record.bestStep && $0.lossKeptOut == record.lossAfter })
  }

  @Test func aPrunedModelIsHealed() async throws {
    let model = try TinyModel.model()
    let sequences = TinyModel.sequences(60, length: 40).suffix(40).map { $0 }
    let pruned = try await Swept("{ prune_width: { ratio: 0.3 } }", model, sequences: sequences)
    let healed = try await Swept(
      "{ prune_width: { ratio: 0.3 } }, { distill: { moves: [weights, norms, embeddings], epochs: 6, batch: 4, rate: 0.003 } }", model,
      sequences: sequences)
    let (before, after) = (try pruned.divergence(from: model), try healed.divergence(from: model))
    // A model of random weights that random tokens are fitted to: little can be learned that holds for others.
    #expect(after < 0.97 * before, "\(after) against \(before)")
  }

  /// Pruned weights stay zero under what is added.
  @Test func lowRankChangesHeal() async throws {
    let model = try TinyModel.model()
    let sequences = TinyModel.sequences(60, length: 40).suffix(40).map { $0 }
    let pruning = "{ wanda: { sparsity: 0.5 } }"
    let before = try await Swept(pruning, model, sequences: sequences)
    let healed = try await Swept(
      "\(pruning), { distill: { moves: [lora, norms], rank: 2, epochs: 6, batch: 4, rate: 0.01 } }", model, sequences: sequences)
    #expect(try healed.divergence(from: model) < 0.97 * before.divergence(from: model))
    for (old, new) in zip(try before.blocks(), try healed.blocks()) {
      for (name, linear) in new.linears {
        let (own, other) = (linear.weight.dense(), old[name].weight.dense())
        #expect(own != other && zip(own.elements, other.elements).allSatisfy { $1 != 0 || $0 == 0 }, "\(name)")
      }
    }
  }

  /// Low-rank factors move as factors, and what several linears read the latents of stays one matrix.
  @Test func factorsAreHealed() async throws {
    let model = try TinyModel.model()
    let pruning = "{ low_rank: { ratio: 0.4 } }"
    let sequences = TinyModel.sequences(60, length: 40).suffix(40).map { $0 }
    let before = try await Swept(pruning, model, sequences: sequences)
    let healed = try await Swept(
      "\(pruning), { distill: { moves: [weights], epochs: 6, batch: 4, rate: 0.003 } }", model, sequences: sequences)
    #expect(try healed.divergence(from: model) < 0.97 * before.divergence(from: model))
    var moved = 0
    for (old, new) in zip(try before.blocks(), try healed.blocks()) {
      for (name, linear) in new.linears {
        guard let own = linear.weight as? FactoredWeight, let other = old[name].weight as? FactoredWeight else { continue }
        #expect(own.rank == other.rank && own.sharesInputOf == other.sharesInputOf)
        moved += own.input.dense() != other.input.dense() && own.output.dense() != other.output.dense() ? 1 : 0
        guard let owner = own.sharesInputOf else { continue }
        #expect((new[owner].weight as? FactoredWeight)?.input.dense() == own.input.dense())
      }
    }
    #expect(moved > 4)
  }

  /// Passes after it see what it has made: rounding follows healing.
  @Test func passesGoOnBehindIt() async throws {
    let model = try TinyModel.model()
    let swept = try await Swept(
      "{ prune_width: { ratio: 0.3 } }, { distill: { moves: [weights], epochs: 4, batch: 2, rate: 0.003 } }, { gptq: { bits: 8, group_size: 16 } }, { distill: { moves: [scales], epochs: 1, validate_every: 1 } }",
      model)
    let pruned = try await Swept("{ prune_width: { ratio: 0.3 } }", model)
    #expect(try swept.blocks().allSatisfy { $0.linears.values.allSatisfy { $0.weight is QuantizedMatrix } })
    #expect(try swept.divergence(from: model) < pruned.divergence(from: model))
    #expect(swept.report.layers.contains { $0.pass == "gptq" } && swept.report.layers.contains { $0.pass == "prune_width" })
  }

  @Test(arguments: ["", ", { gptq: { bits: 4, group_size: 16 } }"]) func zerosStayZeros(_ rounding: String) async throws {
    let model = try TinyModel.model()
    let pruning = "{ wanda: { pattern: '2:4' } }" + rounding
    let before = try await Swept(pruning, model).blocks()
    let after = try await Swept(
      "\(pruning), { distill: { moves: [weights, scales], epochs: 2, batch: 2, rate: 0.003, code_rate: 0.1, scale_rate: 0.003 } }", model
    )
    .blocks()
    for (old, new) in zip(before, after) {
      for name in new.linears.keys {
        let (own, other) = (new[name].weight.dense(), old[name].weight.dense())
        #expect(zip(own.elements, other.elements).allSatisfy { $1 != 0 || $0 == 0 }, "\(name)")
      }
    }
    #expect(zip(before, after).contains { old, new in new["mlp.up_proj"].weight.dense() != old["mlp.up_proj"].weight.dense() })
  }

  /// A table of codes keeps them, and the report says that it did not move.
  @Test func quantizedEmbeddingsStay() async throws {
    let model = try TinyModel.model()
    let table = "{ rtn: { bits: 8, group_size: 16, layers: embed_tokens } }"
    let before = try await Swept("\(Self.rounding), \(table)", model)
    let swept = try await Swept(
      "\(Self.rounding), \(table), { distill: { moves: [embeddings, scales], epochs: 2, batch: 2, scale_rate: 0.01 } }", model)
    let tables = try [before, swept].map { try $0.model.embedding().table.weight as? QuantizedMatrix }
    #expect(tables[0] != nil && tables[0] == tables[1])
    #expect(swept.report.remarks.contains { $0.contains("does not move") })
  }

  /// Numbers as large as recipes may name are estimated, not multiplied into a trap.
  @Test func anyOptionHasACost() throws {
    let options = "epochs: 2147483647, batch: 2147483647"
    let recipe = try Recipe(
      yaml: "passes: [ { tune: { \(options) } }, { distill: { \(options), validate_every: 2147483647 } } ]", file: "test", passes: .standard
    )
    let description = try TinyModel.model().description
    for pass in recipe.passes {
      let cost = try #require(pass as? any TrainingPass).cost(of: description, tokens: 1 << 30, longest: 1 << 20)
      #expect(cost.memory > 0 && cost.operations > 0)
    }
  }

  @Test func blocksThatWereLeftOutAreNoObstacle() async throws {
    let model = try Families.model("olmo3")
    let swept = try await Swept("{ prune_depth: { ratio: 0.5 } }, { distill: { moves: [weights, norms], epochs: 3, batch: 2 } }", model)
    #expect(swept.model.description.blocks.count == 2 && swept.report.keptBlocks.count == 2)
    #expect(swept.report.training.count == 1 && swept.report.training.allSatisfy { $0.lossAfter <= $0.lossBefore })
  }

  @Test func whereNothingIsBetterTheStartIsWritten() async throws {
    let model = try TinyModel.model()
    // The model is its own teacher: no state can be better.
    let swept = try await Swept("{ distill: { moves: [weights], epochs: 1, rate: 0.1 } }", model)
    #expect(swept.report.remarks.contains { $0.contains("no state was better than the start") })
    for index in model.description.blocks.indices {
      let (own, original) = (try swept.model.block(index), try model.block(index))
      for name in own.linears.keys { #expect(own[name].weight.dense() == original[name].weight.dense()) }
    }
  }

  @Test func threadsChangeNothing() async throws {
    func swept() async throws -> [Block] {
      try await Swept(
        "\(Self.rounding), { distill: { moves: [weights, scales, norms], epochs: 1, batch: 3, validate_every: 1 } }",
        try Families.model("qwen3-moe")
      ).blocks()
    }
    let one = try await Parallel.$width.withValue(1) { try await swept() }
    let three = try await Parallel.$width.withValue(3) { try await swept() }
    for (a, b) in zip(one, three) {
      #expect(a.norms == b.norms)
      for (name, linear) in a.linears {
        if let own = linear.weight as? QuantizedMatrix { #expect(own == b[name].weight as! QuantizedMatrix) }
      }
    }
  }

  @Test(arguments: [
    "moves: []", "moves: [weights, lora]", "rank: 0", "state_share: -1", "states: 0", "reach: 0.5", "epochs: 0", "batch: 0", "rate: 0",
    "temperature: 0", "share: 2", "beta: 1", "clip: 0", "kept_out: 0", "validate_every: 0",
  ])
  func badOptionsAreRefused(_ options: String) throws {
    #expect(throws: (any Error).self) { try Recipe(yaml: "passes: [ { distill: { \(options) } } ]", file: "test", passes: .standard) }
  }

  @Test func anEncoderPredictsNothing() throws {
    let recipe = try Recipe(yaml: "passes: [ { distill: {} } ]", file: "test", passes: .standard)
    #expect(throws: PipelineError.self) { _ = try Pipeline(recipe.passes).plan(for: try Families.model("bert")) }
  }
}
