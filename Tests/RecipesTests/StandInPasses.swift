import CompressKit

// Passes with the options that recipes of llm-compressor are mapped to; they do nothing.

struct StandInRotate: Pass {
  static let name = "rotate"
  enum Choice: String, Codable { case hadamard, random, none }
  var hidden = Choice.random
  var values = Choice.random
  func run(on part: inout any ModelPart, in context: PassContext) {}
}

/// Recipes of llm-compressor in tests.
enum Dialect {
  static let catalog = PassCatalog([
    RoundToNearest.self, GPTQ.self, AWQ.self, SmoothQuant.self, StandInRotate.self, CacheCompression.self, SparseGPT.self, Wanda.self,
  ])

  static func read(_ yaml: String, _ settings: String..., file: String = "r.yaml") throws -> Recipe {
    try Recipe(yaml: yaml, file: file, settings: settings, passes: catalog)
  }

  /// One stage and one group over modifiers, which begin in line 3, column 5.
  static func stage(_ modifiers: String) -> String {
    let lines = modifiers.split(separator: "\n", omittingEmptySubsequences: false).map { "    \($0)\n" }
    return "quant_stage:\n  quant_modifiers:\n" + lines.joined()
  }
}
