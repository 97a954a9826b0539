import CompressKit
import TestSupport
import Testing

/// Mistakes that only the model shows are reported with their place in the file.
@Suite struct RecipePlaceTests {
  private func error(_ yaml: String, _ settings: String..., change: (inout Recipe) -> Void = { _ in }) throws -> any Error {
    var recipe = try Recipe(yaml: yaml, file: "r.yaml", settings: settings, passes: .standard)
    change(&recipe)
    let checkpoint = try TinyModel.checkpoint(dtype: .bfloat16)
    return try #require(#expect(throws: (any Error).self) { _ = try Compressor(recipe: recipe).plan(checkpoint) })
  }

  private func expect(
    _ yaml: String, at line: Int, _ column: Int, key: String, saying words: String, _ location: SourceLocation = #_sourceLocation
  ) throws {
    let error = try #require(try error(yaml) as? RecipeError, sourceLocation: location)
    #expect([error.line, error.column] == [line, column] && error.file == "r.yaml", "\(error)", sourceLocation: location)
    #expect(error.problem.key == key && error.description.contains(words), "\(error)", sourceLocation: location)
  }

  @Test func patternsThatMatchNothing() throws {
    try expect(
      "passes:\n- rtn:\n    group_size: 32\n    layers: { include: ['*', down_porj] }\n", at: 4, 30, key: "rtn.layers.include",
      saying: "did you mean \"down_proj\"?")
    try expect(
      "passes:\n- rtn: { group_size: 32 }\n- rtn: { layers: { exclude: [q_prj] } }\n", at: 3, 30, key: "rtn.layers.exclude",
      saying: "\"q_prj\" matches no linear")
    try expect(
      "passes:\n- rtn:\n    group_size: 32\n    overrides:\n    - { layers: [down_proj, x], bits: 8 }\n", at: 5, 29,
      key: "rtn.overrides.layers", saying: "\"x\" matches no linear")
    try expect("passes: [{ rtn: { layers: 're:(' } }]", at: 1, 19, key: "rtn.layers", saying: "not a regular expression")
  }

  /// A word may stand in both lists: the one meant is where it is wrong.
  @Test func theListThatIsMeant() throws {
    try expect(
      "passes:\n- rtn:\n    group_size: 32\n    layers: { exclude: [lm_hea?], include: [lm_hea?] }\n", at: 4, 45, key: "rtn.layers.include",
      saying: "lm_hea?")
  }

  @Test func shapesThatDoNotFit() throws {
    try expect(
      "passes:\n- rtn: { bits: 4, group_size: 48 }\n", at: 2, 19, key: "rtn.group_size", saying: "48 does not divide the 32 columns")
    // The default: there is only the pass to point at.
    try expect("passes:\n- rtn: { bits: 4 }\n", at: 2, 8, key: "rtn.group_size", saying: "128 does not divide the 32 columns")
    try expect("passes:\n- rtn\n", at: 2, 3, key: "rtn.group_size", saying: "128 does not divide the 32 columns")
  }

  @Test func settingsAreNamed() throws {
    let error = try #require(try error("passes: [{ rtn: { group_size: 32 } }]", "passes.rtn.layers=[a_proj]") as? RecipeError)
    #expect(error.file == "--set passes.rtn.layers=[a_proj]" && error.problem.key == "rtn.layers")
  }

  @Test func passesThatCameFromNoFileHaveNoPlace() throws {
    let error = try error("passes: [rtn]") { $0.passes[0] = RoundToNearest.rtn(groupSize: 48) }
    #expect((error as? PipelineError)?.cause is InvalidOption)
  }
}
