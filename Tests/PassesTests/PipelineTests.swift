import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

@Suite struct PipelineTests {
  private let calibration = SweepOptions(calibration: TinyModel.sequences(6, length: 16))

  @Test func sweepsEmbeddingBlocksAndHeadInOrder() async throws {
    let (shelf, recorder) = (Shelf(), Recorder())
    let report = try await Pipeline([Scaling(), RoundToNearest.rtn(groupSize: 32)]).run(
      on: TinyModel.model(), observer: recorder, into: shelf)
    let names = ["model.embed_tokens", "model.layers.0", "model.layers.1", "head"]
    #expect(await shelf.parts.map(\.name) == names)
    #expect(await shelf.parts.map(\.place) == [.embedding, .decoder(index: 0), .decoder(index: 1), .head])
    #expect(report.blocks.map(\.block) == names)
    let seen = recorder.events.compactMap { event in
      switch event {
      case .blockBegan(let name, let index, let count): "begin \(name) \(index + 1)/\(count)"
      case .passBegan(let pass, let block): "\(pass) in \(block)"
      case .blockEnded(let name, let index, let count, _): "end \(name) \(index + 1)/\(count)"
      case .passEnded, .step, .remark: nil
      }
    }
    let expected = names.enumerated().flatMap { index, name in
      ["begin \(name) \(index + 1)/4", "scaling in \(name)", "rtn in \(name)", "end \(name) \(index + 1)/4"]
    }
    #expect(seen == expected)
  }

  @Test func aPassSeesWhatTheOneBeforeItMade() async throws {
    var (double, triple) = (Scaling(), Scaling())
    double.layers = LayerSelector(include: ["q_proj", "lm_head"])
    triple.factor = 3
    triple.layers = LayerSelector(include: ["q_proj", "up_proj"])
    let (shelf, plain) = (Shelf(), Shelf())
    let report = try await Pipeline([double, triple]).run(on: TinyModel.model(), into: shelf)
    _ = try await Pipeline([]).run(on: TinyModel.model(), into: plain)
    let (after, before) = (await shelf.weights, await plain.weights)
    #expect(before.count == 16)
    for (name, weight) in before {
      let factor: Float = name.hasSuffix("q_proj") ? 6 : name.hasSuffix("up_proj") ? 3 : name == "lm_head" ? 2 : 1
      #expect(after[name]?.elements == weight.elements.map { $0 * factor }, "\(name)")
    }
    let layers = report.layers.map { "\($0.pass) \($0.layer) \($0.metrics["factor"]!) \($0.scheme ?? "")" }
    #expect(
      layers == [
        "scaling model.layers.0.self_attn.q_proj 2.0 times 2.0", "scaling model.layers.0.mlp.up_proj 3.0 times 3.0",
        "scaling model.layers.0.self_attn.q_proj 3.0 times 3.0", "scaling model.layers.1.self_attn.q_proj 2.0 times 2.0",
        "scaling model.layers.1.mlp.up_proj 3.0 times 3.0", "scaling model.layers.1.self_attn.q_proj 3.0 times 3.0",
        "scaling lm_head 2.0 times 2.0",
      ])
  }

  @Test func statisticsSeeTheBlocksBeforeAsTheyBecame() async throws {
    var scaling = Scaling()
    scaling.layers = LayerSelector(include: ["layers.0.*"])
    var looking = Looking()
    looking.layers = LayerSelector(include: ["*", "lm_head"])
    let report = try await Pipeline([scaling, looking]).run(on: TinyModel.model(), options: calibration, into: Shelf())
    let other = try await Pipeline([looking]).run(on: TinyModel.model(), options: calibration, into: Shelf())
    func inputs(_ report: Report) -> [String: Double] {
      Dictionary(uniqueKeysWithValues: report.layers.filter { $0.pass == "looking" }.map { ($0.layer, $0.metrics["input"]!) })
    }
    let (changed, plain) = (inputs(report), inputs(other))
    #expect(changed.count == 15 && plain.count == 15)
    #expect(changed["model.layers.0.self_attn.q_proj"] == plain["model.layers.0.self_attn.q_proj"])
    for name in ["model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj", "lm_head"] {
      #expect(changed[name] != plain[name], "\(name)")
    }
  }

  @Test func dataFreePipelinesComputeNoActivations() async throws {
    #expect(!Pipeline([Scaling(), RoundToNearest()]).usesCalibration)
    #expect(Pipeline([Scaling(), GPTQ()]).usesCalibration)
    // Token ids that no embedding has: nobody may look them up.
    let options = SweepOptions(calibration: [[1000, 2000]])
    let report = try await Pipeline([Scaling(), .rtn(groupSize: 32)]).run(on: TinyModel.model(), options: options, into: Shelf())
    #expect(report.blocks.allSatisfy { $0.forwardPasses == nil })
    let calibrated = try await Pipeline([.gptq(groupSize: 32)]).run(on: TinyModel.model(), options: calibration, into: Shelf())
    #expect(calibrated.blocks.map(\.forwardPasses) == [nil, 1, 1, nil])
  }

  @Test func missingCalibrationIsReportedWithItsPlace() async throws {
    let error = await #expect(throws: PipelineError.self) {
      try await Pipeline([Scaling(), .gptq(groupSize: 32)]).run(on: TinyModel.model(), into: Shelf())
    }
    #expect(error?.pass == "gptq")
    #expect(error?.block == "model.layers.0")
    #expect(error?.cause is MissingCalibration)
  }

  @Test(arguments: [1, 2, 3])
  func resultsDoNotDependOnTheNumberOfThreads(width: Int) async throws {
    func weights(_ width: Int) async throws -> [String: Matrix] {
      let shelf = Shelf()
      var gptq = GPTQ.gptq(groupSize: 32)
      gptq.layers = LayerSelector(include: ["*", "lm_head"])
      let options = calibration
      try await Parallel.$width.withValue(width) { [gptq] in
        _ = try await Pipeline([gptq]).run(on: TinyModel.model(), options: options, into: shelf)
      }
      return await shelf.weights
    }
    #expect(try await weights(1) == weights(width))
  }

  @Test func whereActivationsAreKeptDoesNotChangeTheResult() async throws {
    var spilling = calibration
    spilling.activationMemory = 0
    let (kept, spilled) = (Shelf(), Shelf())
    _ = try await Pipeline([.gptq(groupSize: 32)]).run(on: TinyModel.model(), options: calibration, into: kept)
    let report = try await Pipeline([.gptq(groupSize: 32)]).run(on: TinyModel.model(), options: spilling, into: spilled)
    #expect(await kept.weights == spilled.weights)
    #expect(report.blocks.compactMap(\.forwardPasses).allSatisfy { $0 > 1 && $0 <= 1.5 })
  }

  @Test func aRehearsalSweepsOnlyTheKindsItIsGiven() async throws {
    let shelf = Shelf()
    _ = try await Pipeline([Scaling()]).run(on: TinyModel.model(), places: [.embedding, .decoder(index: 0)], into: shelf)
    #expect(await shelf.parts.map(\.place) == [.embedding, .decoder(index: 0)])
  }

  @Test func theReportSurvivesItsFile() async throws {
    let report = try await Pipeline([.gptq(groupSize: 32)]).run(on: TinyModel.model(), options: calibration, into: Shelf())
    #expect(report.layers.count == 14 && report.fallbacks.isEmpty)
    #expect(try JSONDecoder().decode(Report.self, from: JSONEncoder().encode(report)) == report)
  }
}
