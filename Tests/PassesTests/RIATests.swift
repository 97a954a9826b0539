import CompressKit
import TestSupport
import Testing

/// RIA: in every row, drops the weights that matter least to their row and their column (Zhang et al. 2024, equation 4).
struct RIA: Pass {
  static let name = "ria"
  var sparsity: Float = 0.5
  var layers = LayerSelector()

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    for group in part.groups(layers) {
      let norm = try context.statistic(InputNorm.self, of: group, in: part).values
      for name in group.linears {
        var weight = part[name].weight.dense()
        var sums = [Float](repeating: 0, count: weight.columns)
        for row in 0..<weight.rows { for column in sums.indices { sums[column] += abs(weight[row, column]) } }
        weight.updateRows { [sums] _, row in
          var (sum, scores) = (Float(0), [Float]())
          for column in row.indices { sum += abs(row[column]) }
          for column in row.indices { scores.append(abs(row[column]) * (1 / sum + 1 / sums[column]) * norm[column].squareRoot()) }
          let cut = scores.sorted()[Int(sparsity * Float(scores.count))]
          for column in row.indices where scores[column] < cut { row[column] = 0 }
        }
        part[name].weight = weight
        context.record(name, in: part, ["sparsity": Double(sparsity)])
      }
    }
  }
}

/// The custom pass of the guide, as a user would write it.
@Suite struct RIATests {
  private let options = SweepOptions(calibration: TinyModel.sequences(4, length: 16))

  @Test func runsFromCode() async throws {
    let (shelf, plain) = (Shelf(), Shelf())
    let report = try await Pipeline([RIA()]).run(on: TinyModel.model(), options: options, into: shelf)
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
    let report = try await Pipeline([RIA(), .gptq()]).run(on: model, options: options, into: shelf)
    _ = try await Pipeline([RIA()]).run(on: model, options: options, into: sparse)
    #expect(report.layers.map(\.pass).filter { $0 == "ria" }.count == 14)
    #expect(report.layers.map(\.pass).filter { $0 == "gptq" }.count == 14)
    #expect(await shelf.parts[1]["mlp.down_proj"].weight is QuantizedMatrix)
    // The first group of the first block sees the same inputs, so its sparse weights are what was quantized.
    let (quantized, pruned) = (await shelf.weights, await sparse.weights)
    let name = "model.layers.0.self_attn.q_proj"
    let errors = zip(quantized[name]!.elements, pruned[name]!.elements).map { ($0 - $1) * ($0 - $1) }
    #expect(errors.reduce(0, +) < 0.1 * pruned[name]!.elements.reduce(0) { $0 + $1 * $1 })
  }

  @Test func runsFromARecipe() async throws {
    let yaml = """
      passes:
        - ria: { sparsity: 0.25, layers: { exclude: [down_proj] } }
        - gptq: { group_size: 32 }
      """
    let recipe = try Recipe(yaml: yaml, file: "custom.yaml", passes: .standard.adding(RIA.self))
    let ria = try #require(recipe.passes.first as? RIA)
    #expect(ria.sparsity == 0.25 && ria.layers == LayerSelector(exclude: ["down_proj"]))
    let report = try await Pipeline(recipe.passes).run(on: TinyModel.model(), options: options, into: Shelf())
    #expect(report.layers.filter { $0.pass == "ria" }.count == 12)
    #expect(report.layers.filter { $0.pass == "gptq" }.count == 14)
    let error = #expect(throws: RecipeError.self) { try Recipe(yaml: yaml, file: "custom.yaml", passes: .standard) }
    #expect(error?.problem == .unknownPass("ria", known: PassCatalog.standard.names))
    let again = try Recipe(yaml: recipe.yaml, file: "again.yaml", passes: .standard.adding(RIA.self))
    #expect(again.yaml == recipe.yaml)
  }
}
