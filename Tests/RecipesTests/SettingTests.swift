import CompressKit
import Testing

/// `--set path=value` on top of a file.
@Suite struct SettingTests {
  private static let yaml = """
    passes:
      - rtn: { bits: 8 }
      - gptq: { bits: 4 }
      - rtn
      - gptq:
    seed: 1
    """

  private func recipe(_ settings: String...) throws -> Recipe {
    try Recipe(yaml: Self.yaml, file: "r.yaml", settings: settings, passes: .standard)
  }

  private func bits(_ recipe: Recipe) -> [Int] {
    recipe.passes.map { ($0 as? GPTQ)?.effective.bits ?? ($0 as? RoundToNearest)?.effective.bits ?? 0 }
  }

  @Test func byIndex() throws {
    #expect(try bits(recipe("passes.0.rtn.bits=3")) == [3, 4, 4, 4])
    #expect(try bits(recipe("passes.1.gptq.bits=2")) == [8, 2, 4, 4])
    #expect(try bits(recipe("passes.3.gptq.bits=2")) == [8, 4, 4, 2])
    #expect(try bits(recipe("passes.0=gptq")) == [4, 4, 4, 4])
  }

  @Test func byName() throws {
    #expect(try bits(recipe("passes.gptq.bits=2")) == [8, 2, 4, 2])
  }

  @Test func byNameOfAnEntryThatIsOnlyAName() throws {
    #expect(try bits(recipe("passes.rtn.bits=2")) == [2, 4, 2, 4])
    let scalar = try Recipe(yaml: "passes: [gptq]", file: "r.yaml", settings: ["passes.gptq.bits=3"], passes: .standard)
    #expect(bits(scalar) == [3])
    let indexed = try Recipe(yaml: "passes: [gptq]", file: "r.yaml", settings: ["passes.0.gptq.bits=3"], passes: .standard)
    #expect(bits(indexed) == [3])
  }

  @Test func nestedAndNew() throws {
    let recipe = try recipe(
      "passes.gptq.layers.exclude=[lm_head, down_proj]", "calibration.text=a=b.txt", "calibration.length=64", "seed=9", "model=m/n",
      "output.directory=o", "evaluation={ tokens: e.npy, window: 32 }", "passes.gptq.overrides=[{ layers: q_proj, bits: 8 }]")
    #expect((recipe.passes[1] as? GPTQ)?.layers == LayerSelector(exclude: ["lm_head", "down_proj"]))
    #expect((recipe.passes[1] as? GPTQ)?.bits == 4)
    #expect((recipe.passes[3] as? GPTQ)?.overrides == [QuantizationOverride(layers: LayerSelector(include: ["q_proj"]), bits: 8)])
    #expect(recipe.calibration == CalibrationSource(text: "a=b.txt", length: 64))
    #expect(recipe.evaluation == EvaluationSource(tokens: "e.npy", window: 32))
    #expect(recipe.seed == 9 && recipe.model == "m/n" && recipe.output.directory == "o")
  }

  @Test func laterSettingsWin() throws {
    #expect(try recipe("seed=2", "seed=3").seed == 3)
    #expect(try recipe("output.directory=o", "output.directory=").output.directory == nil)
    #expect(try recipe("calibration.text=a", "calibration=").calibration == nil)
  }

  @Test(arguments: [
    ("seed", "seed", "key=value is needed"), ("passes.7.gptq.bits=3", "7", "no such entry"), ("passes.awq.bits=3", "awq", "no such entry"),
    ("passes.-1.bits=3", "-1", "no such entry"), ("seed.deeper=3", "deeper", "single value"),
  ])
  func badPaths(setting: String, key: String, words: String) throws {
    let error = try #require(#expect(throws: RecipeError.self) { _ = try recipe(setting) })
    guard case .invalid(let found, let reason) = error.problem else {
      Issue.record("\(error)")
      return
    }
    #expect(found == key && reason.contains(words))
    #expect(error.description.hasPrefix("--set \(setting): "))
  }

  @Test func mistakesInAValueNameTheSetting() throws {
    let misspelt = #expect(throws: RecipeError.self) { _ = try recipe("passes.gptq.bitz=3") }
    #expect(misspelt?.file == "--set passes.gptq.bitz=3" && misspelt?.suggestion == "bits")
    let impossible = #expect(throws: RecipeError.self) { _ = try recipe("passes.gptq.bits=7") }
    #expect(impossible?.problem == .invalid("gptq.bits", reason: "7: 2, 3, 4, 5, 6, 8 are possible for int"))
    let broken = #expect(throws: RecipeError.self) { _ = try recipe("passes.gptq.bits=[") }
    #expect(broken?.file == "--set passes.gptq.bits=[")
    if case .syntax = broken?.problem {} else { Issue.record("\(String(describing: broken))") }
    #expect(throws: RecipeError.self) { _ = try recipe("=3") }
    let section = #expect(throws: RecipeError.self) { _ = try recipe("calibrations.text=a") }
    #expect(section?.suggestion == "calibration")
  }
}
