import CompressKit
import TestSupport
import Testing

struct InputMagnitudeTests {
  private let first = Matrix.random(rows: 150, columns: 24, key: "first")
  private let second = Matrix.random(rows: 5, columns: 24, key: "second", scale: 3)

  private func expect(_ magnitude: InputMagnitude, of x: Matrix, dividedBy scale: [Float]? = nil) {
    #expect(magnitude.tokens == x.rows)
    for column in 0..<x.columns {
      let values = (0..<x.rows).map { abs(Double(x[$0, column])) / Double(scale?[column] ?? 1) }
      let (mean, square) = (values.reduce(0, +) / Double(x.rows), values.reduce(0) { $0 + $1 * $1 } / Double(x.rows))
      #expect(abs(Double(magnitude.means[column]) - mean) <= 1e-5 * mean)
      #expect(abs(Double(magnitude.meanSquares[column]) - square) <= 1e-5 * square)
      #expect(abs(Double(magnitude.maxima[column]) - values.max()!) <= 1e-6 * values.max()!)
    }
  }

  @Test func itIsWhatItsNameSays() {
    var magnitude = InputMagnitude(features: 24)
    magnitude.update(first)
    expect(magnitude, of: first)
    let scale = (0..<24).map { 0.5 + Float($0) }
    expect(magnitude.divided(by: scale), of: first, dividedBy: scale)
  }

  @Test func mergingIsConcatenating() {
    var (one, other) = (InputMagnitude(features: 24), InputMagnitude(features: 24))
    one.update(first)
    other.update(second)
    var merged = one
    merged.merge(other)
    one.update(second)
    #expect(one == merged)
    expect(merged, of: Matrix(stacking: [first, second]))
    merged.merge(InputMagnitude(features: 24))
    #expect(one == merged)
  }

  @Test func tokensThatAreNotFiniteAreLeftOut() {
    var spoilt = second
    spoilt[2, 3] = .nan
    spoilt[4, 0] = .infinity
    var magnitude = InputMagnitude(features: 24)
    magnitude.update(spoilt)
    expect(magnitude, of: Matrix(stacking: [second.rows(0..<2), second.rows(3..<4)]))
  }
}

/// Asks for the block's inputs and leaves them where the test finds them.
private struct Gazing: BlockPass {
  static let name = "gazing"
  var limit = 3

  func run(on block: inout Block, in context: PassContext) throws {
    let inputs = try context.inputs(of: block, limit: limit)
    context.record(
      block.inputGroups[0].linears[0], in: block,
      [
        "sequences": Double(inputs.count), "rows": Double(inputs[0].rows), "columns": Double(inputs[0].columns),
        "sum": inputs.reduce(0) { $0 + $1.elements.reduce(0) { $0 + Double($1) } }, "following": Double(context.following.count),
      ])
  }
}

/// Works only before another pass.
private struct Preparing: Pass {
  static let name = "preparing"
  func validate(before following: [any Pass]) throws(InvalidOption) {
    if following.isEmpty { throw InvalidOption("passes", "something must follow") }
  }
  func run(on part: inout any ModelPart, in context: PassContext) throws {}
}

struct BlockInputTests {
  @Test func sequencesAreSpreadOverAll() async throws {
    let model = try TinyModel.model()
    let sequences = TinyModel.sequences(7, length: 20)
    let report = try await Pipeline([Gazing(), Looking()]).run(
      on: model, options: SweepOptions(calibration: sequences), into: Shelf())
    let record = try #require(report.layers.first { $0.pass == "gazing" && $0.layer == "model.layers.0.self_attn.q_proj" })
    let table = try model.embedding()["embed_tokens"].weight.dense()
    let expected = [0, 2, 4].flatMap { sequences[$0] }.reduce(0.0) { sum, token in
      sum + (0..<32).reduce(0.0) { $0 + Double(table[Int(token), $1]) }
    }
    #expect(record.metrics["sequences"] == 3 && record.metrics["rows"] == 20 && record.metrics["columns"] == 32)
    #expect(abs(try #require(record.metrics["sum"]) - expected) < 1e-4)
    #expect(record.metrics["following"] == 1)
  }

  @Test func withoutCalibrationThereIsNone() async throws {
    let error = await #expect(throws: PipelineError.self) {
      try await Pipeline([Gazing()]).run(on: try TinyModel.model(), into: Shelf())
    }
    #expect(error?.cause is MissingCalibration)
  }

  @Test func aPassMayInsistOnWhatFollows() async throws {
    let model = try TinyModel.model()
    let options = SweepOptions(calibration: TinyModel.sequences(1, length: 8))
    for pipeline in [Pipeline([Preparing()]), Pipeline([Looking(), Preparing()])] {
      let error = await #expect(throws: PipelineError.self) { try await pipeline.run(on: model, options: options, into: Shelf()) }
      #expect(error?.pass == "preparing" && (error?.cause as? InvalidOption)?.option == "passes")
      #expect(throws: PipelineError.self) { try pipeline.plan(for: model) }
    }
    _ = try await Pipeline([Preparing(), Looking()]).run(on: model, options: options, into: Shelf())
  }
}
