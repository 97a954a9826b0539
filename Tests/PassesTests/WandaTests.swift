import CompressKit
import TestSupport
import Testing

/// Wanda: in every row, drops the weights with the smallest |w|·‖x‖ (Sun et al. 2023, equation 1).
struct Wanda: Pass {
  static let name = "wanda"
  var sparsity: Float = 0.5
  var layers = LayerSelector()

  func run(on block: inout Block, in context: PassContext) throws {
    for group in block.groups(layers) {
      let norm = try context.statistic(InputNorm.self, of: group, in: block).values
      for name in group.linears {
        var weight = block[name].weight.dense()
        weight.updateRows { _, row in
          var scores: [Float] = []
          for column in row.indices { scores.append(abs(row[column]) * norm[column]) }
          let cut = scores.sorted()[Int(sparsity * Float(scores.count))]
          for column in row.indices where scores[column] < cut { row[column] = 0 }
        }
        block[name].weight = weight
        context.record(name, in: block, ["sparsity": Double(sparsity)])
      }
    }
  }
}

/// The custom pass of the guide, as a user would write it.
@Suite struct WandaTests {
  private let options = SweepOptions(calibration: TinyModel.sequences(4, length: 16))

  @Test func runsFromCode() async throws {
    let (shelf, plain) = (Shelf(), Shelf())
    let report = try await Pipeline([Wanda()]).run(on: TinyModel.model(), options: options, into: shelf)
    _ = try await Pipeline([]).run(on: TinyModel.model(), into: plain)
    let (after, before) = (await shelf.weights, await plain.weights)
    for (name, weight) in after {
      guard name.contains("layers") else {
        #expect(weight == before[name], "\(name) was not selected")
        continue
      }
      for row in 0..<weight.rows {
        let kept = (0..<weight.columns).filter { weight[row, $0] != 0 }
        #expect(kept.count == weight.columns / 2)
        #expect(kept.allSatisfy { weight[row, $0] == before[name]![row, $0] })
      }
    }
    #expect(report.layers.count == 14 && report.layers.allSatisfy { $0.metrics == ["sparsity": 0.5] })
  }

  @Test func runsBeforeAnotherPass() async throws {
    let model = try TinyModel.model(Wide.config)
    let (shelf, sparse) = (Shelf(), Shelf())
    let report = try await Pipeline([Wanda(), .gptq()]).run(on: model, options: options, into: shelf)
    _ = try await Pipeline([Wanda()]).run(on: model, options: options, into: sparse)
    #expect(report.layers.map(\.pass).filter { $0 == "wanda" }.count == 14)
    #expect(report.layers.map(\.pass).filter { $0 == "gptq" }.count == 14)
    #expect(await shelf.blocks[1]["mlp.down_proj"].weight is QuantizedMatrix)
    // The first group of the first block sees the same inputs, so its sparse weights are what was quantized.
    let (quantized, pruned) = (await shelf.weights, await sparse.weights)
    let name = "model.layers.0.self_attn.q_proj"
    let errors = zip(quantized[name]!.elements, pruned[name]!.elements).map { ($0 - $1) * ($0 - $1) }
    #expect(errors.reduce(0, +) < 0.1 * pruned[name]!.elements.reduce(0) { $0 + $1 * $1 })
  }

  @Test func runsFromARecipe() async throws {
    let yaml = """
      passes:
        - wanda: { sparsity: 0.25, layers: { exclude: [down_proj] } }
        - gptq: { group_size: 32 }
      """
    let recipe = try Recipe(yaml: yaml, file: "custom.yaml", passes: .standard.adding(Wanda.self))
    let wanda = try #require(recipe.passes.first as? Wanda)
    #expect(wanda.sparsity == 0.25 && wanda.layers == LayerSelector(exclude: ["down_proj"]))
    let report = try await Pipeline(recipe.passes).run(on: TinyModel.model(), options: options, into: Shelf())
    #expect(report.layers.filter { $0.pass == "wanda" }.count == 12)
    #expect(report.layers.filter { $0.pass == "gptq" }.count == 14)
    let error = #expect(throws: RecipeError.self) { try Recipe(yaml: yaml, file: "custom.yaml", passes: .standard) }
    #expect(error?.problem == .unknownPass("wanda", known: PassCatalog.standard.names))
    let again = try Recipe(yaml: recipe.yaml, file: "again.yaml", passes: .standard.adding(Wanda.self))
    #expect(again.yaml == recipe.yaml)
  }
}
