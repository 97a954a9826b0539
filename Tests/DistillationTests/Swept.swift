import CompressKit
import TestSupport

actor Collected: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

/// A model that a recipe's passes have made in memory, with the report.
struct Swept {
  let model: Model
  let report: Report

  static let sequences = TinyModel.sequences(12, length: 40)

  init(
    _ passes: String, _ original: Model, sequences: [[Int32]] = Self.sequences, teachers: [String: Model] = [:]
  ) async throws {
    let recipe = try Recipe(yaml: "passes: [ \(passes) ]", file: "test", passes: .standard)
    let pipeline = Pipeline(recipe.passes)
    _ = try pipeline.plan(for: original)
    let sink = Collected()
    var options = SweepOptions(calibration: sequences)
    options.teachers = teachers
    report = try await pipeline.run(on: original, options: options, into: sink)
    let parts = await sink.parts
    var description = original.description
    description.blocks = parts.compactMap { ($0 as? Block)?.description }
    model = Model(description: description) { place in parts.first { $0.place == place }! }
  }

  func blocks() throws -> [Block] { try model.description.blocks.indices.map { try model.block($0) } }

  /// Mean KL divergence of the original's predictions from these, on tokens that nothing was fitted to.
  func divergence(from original: Model) throws -> Double {
    let tokens = TinyModel.sequences(20, length: 40).suffix(8).flatMap { $0 }
    let result = try Evaluator(window: 40).evaluate(model, against: original, on: tokens)
    return result.divergence!.mean
  }
}
