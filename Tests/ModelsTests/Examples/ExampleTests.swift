import CompressKit
import Foundation
import TestSupport
import Testing

/// Blocks that nobody writes.
private actor Nowhere: PartSink {
  func append(_ part: any ModelPart) {}
}

/// The worked examples of `docs/extending.md`: what stands there is what is compiled and run here.
struct ExampleTests {
  private static let catalog = ArchitectureCatalog.standard.adding(Helium.self, Averaging.self)

  private func model(_ type: String) throws -> Model {
    let config = try ModelConfig(text: TinyModel.config.replacing("\"llama\"", with: "\"\(type)\"").utf8)
    let tensors = MemoryTensorSource(try TinyModel.tensors(config, catalog: Self.catalog))
    return try Model(
      Checkpoint(directory: Places.root, config: config, tensors: tensors), description: Self.catalog.describe(config))
  }

  @Test(arguments: ["Helium", "FadingAverage"]) func theGuideSaysWhatIsCompiled(_ name: String) throws {
    let code = try String(contentsOf: Places.root.appending(path: "Tests/ModelsTests/Examples/\(name).swift"), encoding: .utf8)
    let guide = try String(contentsOf: Places.root.appending(path: "docs/extending.md"), encoding: .utf8)
    #expect(guide.contains("```swift\n\(code)```"))
  }

  @Test func theREADMESaysWhatIsCompiled() throws {
    let code = try String(contentsOf: Places.root.appending(path: "Tests/ModelsTests/Examples/FourBits.swift"), encoding: .utf8)
    #expect(try String(contentsOf: Places.root.appending(path: "README.md"), encoding: .utf8).contains("```swift\n\(code)```"))
  }

  @Test func fromOpeningToSaving() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, tokens) = (directory.appending(path: "model"), directory.appending(path: "tokens.npy"))
      try await TinyModel.write(to: source)
      try TinyModel.write(tokens: TinyModel.sequences(8, length: 32).flatMap { $0 }, to: tokens)
      let (model, report) = try await fourBits(
        of: source, fittedTo: CalibrationSource(tokens: tokens.path, sequences: 8, length: 32),
        scoredOn: EvaluationSource(tokens: tokens.path, window: 32), into: directory.appending(path: "out"))
      let (first, second) = (try model.block(0), try model.block(1))
      #expect(first["self_attn.q_proj"].weight is QuantizedMatrix == false)
      #expect((second["self_attn.q_proj"].weight as? QuantizedMatrix)?.scheme.bits == 4)
      #expect(report.format == "compressed-tensors" && report.evaluation?.perplexityAfter.isFinite == true)
    }
  }

  /// A stranger's family and mixer go through calibration, drift and states as any other.
  @Test(arguments: ["helium", "averaging"]) func strangersRunAsAnyOther(_ type: String) async throws {
    let model = try model(type)
    let recipe = try Recipe(
      yaml: "passes: [ { gptq: { bits: 4, group_size: 16, drift_correction: 0.5 } } ]", file: "recipe.yaml", passes: .standard)
    let report = try await Pipeline(recipe.passes).run(
      on: model, options: SweepOptions(calibration: TinyModel.sequences(8, length: 24)),
      into: Nowhere())
    let linears = model.description.blocks.flatMap { $0.inputGroups.flatMap(\.linears) }
    #expect(report.layers.count == linears.count && report.layers.allSatisfy { $0.fallback == nil })

    let tokens = TinyModel.sequences(1, length: 20)[0]
    let whole = try model.logits(of: tokens)
    var generator = try Generator(model, positions: 20)
    _ = try generator.read(Array(tokens[..<7]))
    for token in tokens[7..<19] { _ = try generator.read([token]) }
    let last = try generator.read([tokens[19]])
    #expect(Matrix(rows: 1, columns: last.count, elements: last).distance(to: whole.rows(19..<20)) < 1e-4)
  }
}
