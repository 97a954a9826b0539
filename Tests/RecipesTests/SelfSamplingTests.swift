import CompressKit
import Testing

@Suite struct SelfSamplingTests {
  private func recipe(_ calibration: String) throws(RecipeError) -> Recipe {
    try Recipe(yaml: "calibration: { \(calibration) }\npasses: [gptq]\n", file: "recipe.yaml", passes: .standard)
  }

  @Test func isSpelledAsSelf() throws {
    #expect(try recipe("self: {}").calibration?.sampled == SelfSampling())
    let read = try recipe("self: { temperature: 0.5, top_p: 0.9 }, sequences: 4, length: 16")
    #expect(read.calibration?.sampled == SelfSampling(temperature: 0.5, topP: 0.9))
    #expect(try Recipe(yaml: read.yaml, file: "again.yaml", passes: .standard).calibration == read.calibration)
  }

  @Test(arguments: [
    "self: {}, text: a.txt", "self: {}, tokens: a.npy", "self: {}, statistics: a.h5", "self: {}, shuffle: true",
    "self: { temperature: -1 }",
    "self: { top_p: 0 }", "self: { top_p: 1.5 }", "self: { topp: 1 }", "self: true", "sequences: 3", "self: {}, packing: documents",
  ])
  func refusesWhatMakesNoSense(_ calibration: String) {
    #expect(throws: RecipeError.self) { try recipe(calibration) }
  }

  @Test func savedStatisticsStandAlone() throws {
    #expect(try recipe("statistics: a.h5").calibration?.statistics == "a.h5")
  }
}
