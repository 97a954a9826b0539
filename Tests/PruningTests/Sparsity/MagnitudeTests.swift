import CompressKit
import TestSupport
import Testing

@Suite struct MagnitudeTests {
  private func swept(_ pass: Magnitude, _ config: String = TinyModel.config) async throws -> (
    before: [any ModelPart], after: [any ModelPart], Report
  ) {
    let (before, after) = (Blocks(), Blocks())
    _ = try await Pipeline([]).run(on: TinyModel.model(config), into: before)
    let report = try await Pipeline([pass]).run(on: TinyModel.model(config), into: after)
    return (await before.all, await after.all, report)
  }

  @Test func halfOfALayerGoesAndTheRestStays() async throws {
    let (before, after, report) = try await swept(Magnitude())
    for (old, new) in zip(before, after) {
      for (name, linear) in new.linears {
        let (weight, original) = (linear.weight.dense(), old[name].weight.dense())
        guard case .decoder = new.place else {
          #expect(weight == original)
          continue
        }
        let removed = weight.elements.indices.filter { weight.elements[$0] == 0 }
        #expect(removed.count == weight.elements.count / 2)
        let largestRemoved = removed.map { abs(original.elements[$0]) }.max()!
        for (own, was) in zip(weight.elements, original.elements) where own != 0 {
          #expect(own == was && abs(was) >= largestRemoved)
        }
      }
    }
    #expect(report.layers.count == 14 && report.layers.allSatisfy { $0.metrics["sparsity"] == 0.5 && $0.scheme == "50 % zeros" })
  }

  @Test func patternsHoldInEveryGroup() async throws {
    var pass = Magnitude()
    pass.pattern = .grouped(kept: 1, group: 4)
    pass.layers = LayerSelector(exclude: ["down_proj"])
    let (_, after, report) = try await swept(pass)
    let weight = after[1]["self_attn.q_proj"].weight.dense()
    for start in stride(from: 0, to: weight.elements.count, by: 4) {
      #expect(weight.elements[start..<start + 4].count { $0 != 0 } == 1)
    }
    #expect(after[1]["mlp.down_proj"].weight is StoredWeight)
    #expect(report.layers.count == 12 && report.layers.allSatisfy { $0.metrics["sparsity"] == 0.75 })
  }

  @Test func mistakesAreSaid() throws {
    func pass(_ options: String) throws -> Magnitude {
      try #require(
        Recipe(yaml: "passes: [magnitude: \(options)]", file: "r.yaml", passes: .standard).passes[0] as? Magnitude)
    }
    #expect(try pass("{ pattern: 2:4 }").pattern == .grouped(kept: 2, group: 4))
    #expect(try pass("{ pattern: '4:8', sparsity: 0.5, comparison: row }").comparison == .row)
    #expect(try pass("{ sparsity: 0.7 }").sparsity == 0.7)
    for wrong in ["{ sparsity: 1 }", "{ sparsity: -0.1 }", "{ pattern: 2:4, sparsity: 0.6 }", "{ pattern: 4:2 }", "{ ratio: 0.5 }"] {
      #expect(throws: RecipeError.self, "\(wrong)") { try pass(wrong) }
    }
    // 31 is no multiple of 3.
    var odd = Magnitude()
    odd.pattern = .grouped(kept: 1, group: 3)
    let error = #expect(throws: PipelineError.self) { try Pipeline([odd]).plan(for: TinyModel.model()) }
    #expect(error.map { "\($0)".contains("1:3 does not divide the 32 columns") } == true)
  }

  @Test func thePlanSaysWhatComes() throws {
    var pass = Magnitude()
    pass.pattern = .grouped(kept: 2, group: 4)
    let plan = try Pipeline([pass]).plan(for: TinyModel.model())
    for linear in plan {
      #expect(linear.scheme == (linear.isEnd ? "F32" : "F32 2:4"))
      #expect(linear.storedBits == linear.rows * linear.columns * 32)
    }
  }
}
