import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Pruning

@Suite struct PruneDepthTests {
  static let config = TinyModel.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":4")

  private func pass(_ change: (inout PruneDepth) -> Void) -> PruneDepth {
    var pass = PruneDepth()
    change(&pass)
    return pass
  }

  /// Four blocks, of which one does nothing.
  private func modelWithIdleBlock(_ layer: Int) throws -> Model {
    var checkpoint = try EditableCheckpoint(Self.config)
    for name in ["self_attn.o_proj", "mlp.down_proj"] { checkpoint.edit("model.layers.\(layer).\(name).weight") { _, _, _ in 0 } }
    return try checkpoint.model()
  }

  @Test(arguments: [PruneDepth.Criterion.influence, .divergence], PruneDepth.Repair.allCases)
  func aBlockThatDoesNothingGoesUnnoticed(criterion: PruneDepth.Criterion, repair: PruneDepth.Repair) async throws {
    for layer in [0, 2, 3] {
      let model = try modelWithIdleBlock(layer)
      let swept = try await Swept([pass { ($0.count, $0.criterion, $0.repair) = (1, criterion, repair) }], on: model)
      #expect(swept.model.description.blocks.map(\.prefix) == (0..<3).map { "model.layers.\($0)." })
      #expect(try drift(model, swept.model) < 1e-5)
      let names = try swept.model.places.flatMap { place in
        let block = try swept.model.part(place)
        return block.linears.keys.map { block.fullName(of: $0) }
      }
      #expect(names.contains("model.layers.2.mlp.up_proj") && !names.contains { $0.contains("layers.3") })
      #expect(swept.report.remarks.contains { $0.hasPrefix("model.layers.\(layer) left out; 3 layers remain") })
      let kept = (0..<4).filter { $0 != layer }
      for (place, original) in kept.enumerated() {
        #expect(swept.metric("original_block", of: "model.layers.\(place)") == Double(original))
      }
    }
  }

  @Test func layersThatDoNothingBecomeZero() async throws {
    var checkpoint = try EditableCheckpoint(Self.config)
    checkpoint.edit("model.layers.1.self_attn.o_proj.weight") { _, _, value in value * 1e-6 }
    checkpoint.edit("model.layers.3.mlp.down_proj.weight") { _, _, value in value * 1e-6 }
    let model = try checkpoint.model()
    let swept = try await Swept([pass { ($0.count, $0.units, $0.repair) = (2, .layers, .none) }], on: model)
    #expect(swept.model.description == model.description)
    for (layer, name) in [(1, "self_attn.o_proj"), (3, "mlp.down_proj")] {
      let weight = try swept.model.block(layer)[LinearName(rawValue: name)].weight.dense()
      #expect(weight.elements.allSatisfy { $0 == 0 })
    }
    #expect(try drift(model, swept.model) < 1e-4)
    #expect(swept.report.remarks.contains { $0.contains("stays in the file") })
  }

  @Test func aBlockThatLosesBothLayersGoesAsAWhole() async throws {
    let model = try modelWithIdleBlock(1)
    let swept = try await Swept([pass { ($0.count, $0.units, $0.repair) = (2, .layers, .none) }], on: model)
    #expect(swept.model.description.blocks.count == 3)
    #expect(try drift(model, swept.model) < 1e-5)
  }

  /// Every candidate removed from the whole model, scored on all of its predictions.
  @Test(arguments: [PruneDepth.Criterion.divergence, .perplexity])
  func theSearchIsTheGreedyChoice(criterion: PruneDepth.Criterion) async throws {
    let model = try TinyModel.model(Self.config)
    let sequences = TinyModel.sequences(3, length: 24)
    func score(_ gone: Set<Int>) throws -> Double {
      let smaller = model.removing(gone)
      var sum = 0.0
      for tokens in sequences {
        let (own, reference) = (try smaller.logits(of: tokens), try model.logits(of: tokens))
        func logs(_ logits: Matrix, _ row: Int) -> [Double] {
          let values = (0..<logits.columns).map { Double(logits[row, $0]) }
          let total = log(values.reduce(0) { $0 + exp($1) })
          return values.map { $0 - total }
        }
        for row in 0..<own.rows {
          let (mine, theirs) = (logs(own, row), logs(reference, row))
          if criterion == .divergence {
            sum += zip(theirs, mine).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) }
          } else if row + 1 < tokens.count {
            sum -= mine[Int(tokens[row + 1])]
          }
        }
      }
      return sum
    }
    var gone: Set<Int> = []
    for _ in 0..<2 {
      gone.insert(try (0..<4).filter { !gone.contains($0) }.min { try score(gone.union([$0])) < score(gone.union([$1])) }!)
    }
    let swept = try await Swept(
      [pass { ($0.count, $0.criterion, $0.repair) = (2, criterion, .none) }], on: model, sequences: sequences)
    let kept = (0..<2).compactMap { swept.metric("original_block", of: "model.layers.\($0)") }
    #expect(kept == (0..<4).filter { !gone.contains($0) }.map(Double.init))
    #expect(try drift(model.removing(gone), swept.model) == 0)
  }

  /// The repaired weight solves the normal equations, in double.
  @Test func theRepairIsLeastSquares() async throws {
    var checkpoint = try EditableCheckpoint(Self.config)
    // The block that influence will choose.
    for name in ["self_attn.o_proj", "mlp.down_proj"] {
      checkpoint.edit("model.layers.2.\(name).weight") { _, _, value in value * 0.2 }
    }
    let model = try checkpoint.model()
    let sequences = TinyModel.sequences(8, length: 32)
    let damping = 1e-2
    let swept = try await Swept(
      [pass { ($0.count, $0.criterion, $0.damping, $0.repair) = (1, .influence, damping, .gaps) }], on: model, sequences: sequences)
    let table = try model.embedding()
    let before = try (0...2).map { PreparedBlock(try model.block($0), positions: 32) }
    let size = 64
    var gram = Array(repeating: [Double](repeating: 0, count: size), count: size)
    var cross = Array(repeating: [Double](repeating: 0, count: size), count: 32)
    for tokens in sequences {
      let hidden = try before[0].forward(try PreparedEmbedding(table)(tokens))
      var state = try before[1].start(hidden)
      while state.stage < 3 { try before[1].advance(&state) }
      let input = try #require(state.input)
      let whole = try before[1].forward(hidden)
      let target = try before[2].forward(whole)
      for row in 0..<input.rows {
        let x = (0..<size).map { Double(input[row, $0]) }
        for i in 0..<size { for j in 0..<size { gram[i][j] += x[i] * x[j] } }
        for out in 0..<32 { for j in 0..<size { cross[out][j] += Double(target[row, out] - whole[row, out]) * x[j] } }
      }
    }
    let shift = damping * (0..<size).reduce(0) { $0 + gram[$1][$1] } / Double(size)
    for i in 0..<size { gram[i][i] += shift }
    let change = solved(gram, cross)
    let (old, new) = (
      try model.block(1)["mlp.down_proj"].weight.dense(),
      try swept.model.block(1)["mlp.down_proj"].weight.dense()
    )
    let largest = change.flatMap { $0 }.reduce(0) { max($0, abs($1)) }
    for row in 0..<32 {
      for column in 0..<size { #expect(abs(Double(new[row, column] - old[row, column]) - change[row][column]) < 1e-3 * largest) }
    }
  }

  @Test func repairBringsTheModelCloser() async throws {
    let model = try TinyModel.model(Self.config)
    func divergence(_ repair: PruneDepth.Repair) async throws -> Double {
      let sequences = TinyModel.sequences(64, length: 32)
      let swept = try await Swept(
        [pass { ($0.count, $0.criterion, $0.repair) = (1, .influence, repair) }], on: model, sequences: sequences)
      let result = try Evaluator(window: 32).evaluate(swept.model, against: model, on: sequences.flatMap { $0 })
      return result.divergence!.mean
    }
    #expect(try await divergence(.gaps) < divergence(.none))
  }

  @Test func theBudgetIsMetAsNearlyAsUnitsAllow() throws {
    let model = try TinyModel.model(Self.config).description
    for (ratio, blocks) in [(0.2, 1), (0.3, 1), (0.4, 2), (0.01, 1), (0.99, 4)] {
      let units = pass { $0.ratio = ratio }
      if blocks == 4 {
        #expect(throws: InvalidOption.self) { try units.reshape(model) }
      } else {
        #expect(try units.reshape(model).blocks.count == 4 - blocks)
      }
    }
    let options = pass { ($0.ratio, $0.units) = (0.2, .layers) }
    let units = try DepthUnits(options, model)
    let lightest = units.candidates.map(\.weights).min()!
    let share = units.share(of: units.lowest { Double($0.block) })
    #expect(abs(share - 0.2) <= Double(lightest) / 2 / Double(model.blocks.reduce(0) { $0 + $1.weights }))
    let ends = try DepthUnits(pass { ($0.keepFirst, $0.keepLast) = (1, 1) }, model)
    #expect(ends.candidates.map(\.block) == [1, 2])
    #expect(throws: InvalidOption.self) { try DepthUnits(pass { ($0.keepFirst, $0.keepLast) = (2, 2) }, model) }
  }

  /// What a block multiplies the stream by stays where a layer goes.
  @Test func layersUnderAScaledStreamStay() throws {
    let model = try Families.model("gemma4").description
    for options in [pass { ($0.count, $0.units) = (1, .layers) }, pass { ($0.count, $0.repair) = (1, .gaps) }] {
      let error = #expect(throws: InvalidOption.self) { try options.reshape(model) }
      #expect(error?.description.contains("multiplies the residual stream by a number of its own") == true)
    }
    #expect(try pass { $0.count = 1 }.reshape(model).blocks.count == 2)
  }

  @Test func itComesFirst() throws {
    let model = try TinyModel.model(Self.config)
    let error = #expect(throws: PipelineError.self) { try Pipeline([.rotate(), PruneDepth()]).plan(for: model) }
    #expect(error?.description.contains("put it before rotate") == true)
    let plan = try Pipeline([PruneDepth(), .rotate(), .gptq(groupSize: .columns(32))]).plan(for: model)
    #expect(!plan.contains { $0.name.contains("layers.3") } && plan.contains { $0.name.contains("layers.2") })
  }

  @Test func whatIsWrittenIsWhatWasMade() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await TinyModel.write(to: source, Self.config, dtype: .float32)
      try TinyModel.write(tokens: TinyModel.sequences(8, length: 32).flatMap { $0 }, to: directory.appending(path: "c.npy"))
      for options in [
        "count: 1", "count: 3, units: layers, criterion: perplexity", "ratio: 0.5, criterion: random", "criterion: magnitude",
      ] {
        let yaml = """
          calibration: { tokens: c.npy, sequences: 8, length: 32 }
          passes:
            - prune_depth: { \(options) }
          output: { format: safetensors }
          """
        let recipe = try Recipe(yaml: yaml, file: "recipe.yaml", passes: .standard)
        let output = directory.appending(path: "out")
        let compressor = Compressor(recipe: recipe, bases: [directory], overwrite: true)
        let report = try await compressor.run(try Checkpoint(source), to: output)
        let swept = try await Swept(recipe.passes, on: try Model(Checkpoint(source)))
        let written = try Model(Checkpoint(output))
        #expect(written.description == swept.model.description, "\(options)")
        #expect(try drift(swept.model, written) == 0, "\(options)")
        #expect(report.remarks.contains { $0.contains("% were asked for") })
      }
    }
  }
}
