import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Pruning

@Suite struct PruneWidthTests {
  private func pass(_ change: (inout PruneWidth) -> Void) -> PruneWidth {
    var pass = PruneWidth()
    pass.multipleOf = 1
    change(&pass)
    return pass
  }

  static let importances: [WidthImportance] = [.fluctuation, .wanda, .reconstruction]

  @Test(arguments: importances, Compensation.allCases)
  func channelsWithoutEffectGoUnnoticed(importance: WidthImportance, compensation: Compensation) async throws {
    var checkpoint = try EditableCheckpoint()
    for layer in 0..<2 {
      checkpoint.edit("model.layers.\(layer).mlp.down_proj.weight") { _, column, value in column % 4 == layer ? 0 : value }
    }
    let model = try checkpoint.model()
    let swept = try await Swept([pass { ($0.feedForward, $0.importance, $0.compensation) = (48, importance, compensation) }], on: model)
    #expect(swept.model.description.blocks.allSatisfy { $0.feedForward?.size == 48 })
    #expect(try drift(model, swept.model) < 2e-5)
  }

  @Test func magnitudeAndActivationsFindWhatIsZero() async throws {
    var checkpoint = try EditableCheckpoint()
    for name in ["gate_proj", "up_proj"] {
      checkpoint.edit("model.layers.0.mlp.\(name).weight") { row, _, value in row < 16 ? 0 : value }
      checkpoint.edit("model.layers.1.mlp.\(name).weight") { row, _, value in row >= 48 ? 0 : value }
    }
    for layer in 0..<2 {
      checkpoint.edit("model.layers.\(layer).mlp.down_proj.weight") { _, column, value in
        (layer == 0 ? column < 16 : column >= 48) ? 0 : value
      }
    }
    let model = try checkpoint.model()
    for importance in [WidthImportance.magnitude, .activations] {
      let swept = try await Swept([pass { ($0.feedForward, $0.importance, $0.compensation) = (48, importance, .none) }], on: model)
      #expect(try drift(model, swept.model) < 1e-6, "\(importance)")
    }
  }

  @Test(arguments: importances)
  func headsWithoutEffectGoUnnoticed(importance: WidthImportance) async throws {
    var checkpoint = try EditableCheckpoint()
    // Four heads of eight columns on two key-value heads: the second of the first pair, the first of the second.
    for layer in 0..<2 {
      checkpoint.edit("model.layers.\(layer).self_attn.o_proj.weight") { _, column, value in (8..<24).contains(column) ? 0 : value }
    }
    let model = try checkpoint.model()
    let swept = try await Swept([pass { ($0.heads, $0.importance) = (2, importance) }], on: model)
    let attention = try #require(swept.model.description.blocks[1].attention)
    #expect(attention.heads == 2 && attention.keyValueHeads == 2)
    #expect(try drift(model, swept.model) < 2e-5)
  }

  @Test(arguments: importances + [.magnitude])
  func keyValueHeadsGoWithTheirQueries(importance: WidthImportance) async throws {
    var checkpoint = try EditableCheckpoint()
    for layer in 0..<2 {
      checkpoint.edit("model.layers.\(layer).self_attn.o_proj.weight") { _, column, value in column / 16 == layer ? 0 : value }
    }
    let model = try checkpoint.model()
    let swept = try await Swept([pass { ($0.keyValueHeads, $0.importance) = (1, importance) }], on: model)
    let attention = try #require(swept.model.description.blocks[0].attention)
    #expect(attention.heads == 2 && attention.keyValueHeads == 1)
    #expect(try drift(model, swept.model) < 2e-5)
  }

  @Test(arguments: [WidthImportance.activations, .fluctuation, .wanda])
  func dimensionsThatNobodyWritesGoUnnoticed(importance: WidthImportance) async throws {
    var checkpoint = try EditableCheckpoint()
    func isUnused(_ dimension: Int) -> Bool { dimension % 4 == 1 }
    checkpoint.edit("model.embed_tokens.weight") { _, column, value in isUnused(column) ? 0 : value }
    for layer in 0..<2 {
      for name in ["self_attn.o_proj", "mlp.down_proj"] {
        checkpoint.edit("model.layers.\(layer).\(name).weight") { row, _, value in isUnused(row) ? 0 : value }
      }
    }
    let model = try checkpoint.model()
    let swept = try await Swept([pass { ($0.hidden, $0.importance) = (24, importance) }], on: model)
    #expect(swept.model.description.hiddenSize == 24 && swept.model.description.normEpsilon > model.description.normEpsilon)
    #expect(try drift(model, swept.model) < 1e-5)
  }

  @Test func everythingAtOnce() async throws {
    let model = try TinyModel.model()
    let narrow = pass { ($0.hidden, $0.heads, $0.feedForward, $0.importance) = (24, 2, 40, .wanda) }
    let swept = try await Swept([narrow], on: model)
    #expect(swept.model.description == (try narrow.reshape(model.description)))
    #expect(try drift(model, swept.model).isFinite)
    let plan = try Pipeline([narrow]).plan(for: model)
    for place in swept.model.places {
      let block = try swept.model.part(place)
      for (name, linear) in block.linears {
        let planned = try #require(plan.first { $0.name == block.fullName(of: name) })
        #expect(planned.rows == linear.weight.rows && planned.columns == linear.weight.columns)
        #expect(planned.storedBits == planned.rows * planned.columns * 32)
      }
    }
  }

  @Test func leastSquaresLosesLeast() async throws {
    let model = try TinyModel.model()
    var losses: [Compensation: Double] = [:]
    for compensation in Compensation.allCases {
      let swept = try await Swept([pass { ($0.ratio, $0.importance, $0.compensation) = (0.2, .wanda, compensation) }], on: model)
      losses[compensation] = swept.metric("relative_layer_loss", of: "model.layers.0.mlp.down_proj")
    }
    #expect(losses[.leastSquares]! < losses[.bias]! && losses[.bias]! <= losses[.none]!)
  }

  @Test func aShareOfTheWeightsGoes() async throws {
    let block = try TinyModel.model().description.blocks[0]
    for (axis, ratio) in [(WidthAxis.feedForward, 0.2), (.heads, 0.15), (.keyValueHeads, 0.2), (.hidden, 0.25)] {
      let smaller = try pass { ($0.axis, $0.ratio, $0.importance) = (axis, ratio, .wanda) }.reshape(TinyModel.model().description).blocks[0]
      let gone = 1 - Double(smaller.weights) / Double(block.weights)
      // Heads come in steps.
      #expect(abs(gone - ratio) < ([.heads, .keyValueHeads].contains(axis) ? 0.1 : 0.01), "\(axis): \(gone)")
    }
  }

  @Test func whatDoesNotFitIsRefused() throws {
    let model = try TinyModel.model()
    for (change, word) in [
      ({ $0.heads = 3 }, "must keep equally many"), ({ $0.feedForward = 65 }, "the model has 64"), ({ $0.hidden = 0 }, "the model has 32"),
      ({ ($0.axis, $0.ratio) = (.feedForward, 0.9) }, "more than feed_forward can give"),
    ] as [((inout PruneWidth) -> Void, String)] {
      let error = #expect(throws: PipelineError.self) { try Pipeline([pass(change)]).plan(for: model) }
      #expect(error?.description.contains(word) == true, "\(String(describing: error))")
    }
    #expect(throws: InvalidOption.self) { try pass { ($0.hidden, $0.importance) = (24, .reconstruction) }.validate() }
    #expect(throws: InvalidOption.self) { try pass { $0.ratio = 1 }.validate() }
    let late = #expect(throws: PipelineError.self) { try Pipeline([.gptq(groupSize: .columns(32)), .pruneWidth()]).plan(for: model) }
    #expect(late?.description.contains("cannot be made smaller") == true)
  }

  @Test func whatIsWrittenIsWhatWasMade() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await TinyModel.write(to: source, dtype: .float32)
      try TinyModel.write(tokens: TinyModel.sequences(8, length: 32).flatMap { $0 }, to: directory.appending(path: "c.npy"))
      for options in [
        "feed_forward: 40, heads: 2", "hidden: 24, importance: fluctuation", "ratio: 0.2, importance: fluctuation, compensation: bias",
        "key_value_heads: 1, compensation: bias",
      ] {
        let yaml = """
          calibration: { tokens: c.npy, sequences: 8, length: 32 }
          passes:
            - prune_width: { \(options), multiple_of: 8 }
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
        #expect(report.sizes.linearParametersAfter == swept.model.description.blocks.reduce(0) { $0 + $1.weights })
        #expect(report.sizes.linearParametersAfter < report.sizes.linearParametersBefore)
      }
    }
  }
}
