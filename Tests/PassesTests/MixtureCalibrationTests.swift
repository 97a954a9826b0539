import CompressKit
import Foundation
import TestSupport
import Testing

/// Calibration of mixtures: each expert's statistics are those of the tokens sent to it.
struct MixtureCalibrationTests {
  private let sequences = TinyModel.sequences(5, length: 12) + TinyModel.sequences(2, length: 7)

  private actor Forgotten: PartSink {
    func append(_ part: any ModelPart) {}
  }

  @Test(arguments: Families.allMixtures, [Int.max, 0]) func expertsSeeTheirTokens(_ name: String, memory: Int)
    throws
  {
    let model = try Families.model(name)
    let stream = try CalibrationStream(
      sequences, description: model.description, memory: memory, scratch: FileManager.default.temporaryDirectory)
    let table = try model.embedding()
    try stream.embed(table)
    var hidden = try sequences.map { try PreparedEmbedding(table)($0) }
    for index in model.description.blocks.indices {
      let block = try model.block(index)
      let prepared = PreparedBlock(block, positions: 12)
      var counts: [Int] = []
      // Backwards, so that no group is helped by the one before it.
      for (stage, group) in block.inputGroups.enumerated().reversed() {
        let inputs = try hidden.map { hidden in
          var state = try prepared.start(hidden)
          while state.stage < stage { try prepared.advance(&state) }
          return state.input!
        }
        let stacked = Matrix(stacking: inputs)
        let found = try stream.statistic(InputNorm.self, of: group, in: block)
        #expect(found.tokens == stacked.rows)
        var expected = InputNorm(features: stacked.columns)
        expected.update(stacked)
        for (a, b) in zip(found.values, expected.values) { #expect(abs(a - b) <= 1e-5 * max(1, b)) }
        let program = block.description.program
        if program.expert(atStop: program.stops[stage]) != nil, !program.isWide(program.steps[program.stops[stage]].reads[0]) {
          counts.insert(stacked.rows, at: 0)
        }
      }
      #expect(try stream.finish(block).expertTokens == counts)
      hidden = try hidden.map { try prepared.forward($0) }
    }
  }

  @Test func starvedExpertsAreReported() async throws {
    let model = try Families.model("olmoe")
    let report = try await Pipeline([.gptq(groupSize: 32)]).run(
      on: model, options: SweepOptions(calibration: TinyModel.sequences(1, length: 10)), into: Forgotten())
    let blocks = report.blocks.filter { $0.expertTokens != nil }
    #expect(blocks.count == 2 && blocks.allSatisfy { $0.expertTokens?.reduce(0, +) == 20 })
    let words = "model.layers.0: 4 of 4 experts saw fewer calibration tokens than their 32 inputs: 0 ("
    #expect(report.remarks.contains { $0.hasPrefix(words) })
  }

  /// The streams through the original and the compressed model may route differently.
  @Test(arguments: Families.allMixtures) func driftIsMeasuredOnTokensThatBothModelsSend(_ name: String) async throws {
    var gptq = GPTQ()
    gptq.bits = 2
    gptq.groupSize = 32
    gptq.driftCorrection = 0.5
    let report = try await Pipeline([gptq]).run(
      on: try Families.model(name), options: SweepOptions(calibration: TinyModel.sequences(40, length: 24)), into: Forgotten())
    #expect(report.fallbacks.isEmpty)
    #expect(!report.layers.contains { $0.layer.hasSuffix(".gate") || $0.layer.hasSuffix("shared_expert_gate") })
  }
}
