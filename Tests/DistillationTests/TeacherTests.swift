import CompressKit
import TestSupport
import Testing
import Training

struct TeacherTests {
  private static let rounding = "{ rtn: { bits: 2, group_size: 16 } }"

  /// The same model, surer of itself: its final norm is half as large again.
  private static func surer(_ model: Model) -> Model {
    model.changing { part in
      guard var head = part as? Head else { return }
      for (name, weights) in head.norms.weights { head.norms.weights[name] = weights.map { 1.5 * $0 } }
      part = head
    }
  }

  @Test func aNamedTeacherIsLearnedFrom() async throws {
    let model = try TinyModel.model()
    let teacher = Self.surer(model)
    let swept = try await Swept(
      "{ distill: { teacher: surer, moves: [norms], epochs: 8, batch: 2, rate: 0.05 } }", model, teachers: ["surer": teacher])
    let (before, after) = (try Evaluator.divergence(of: model, from: teacher), try swept.divergence(from: teacher))
    #expect(after < 0.5 * before, "\(after) against \(before)")
    let record = try #require(swept.report.training.first)
    // What it began with is its divergence from the teacher named, not from itself, which is nothing.
    #expect(record.lossBefore > 0.5 * before && record.seconds > 0)
  }

  @Test func aTeacherThatNobodyOpenedIsAnError() async throws {
    let model = try TinyModel.model()
    await #expect(throws: PipelineError.self) { try await Swept("{ distill: { teacher: elsewhere } }", model) }
  }

  /// Codes that were hard to choose are near to where they change; without reach all latents lie on their codes.
  @Test func latentsBeginTowardsTheTeachersWeights() async throws {
    let model = try TinyModel.model()
    let rounded = try await Swept(Self.rounding, model)
    let originals = try model.description.blocks.indices.map { try model.block($0) }
    var moving = MovingParameters()
    moving.codes = true
    func trainable(_ reach: Float) throws -> TrainableModel {
      TrainableModel(
        model.description, embedding: try model.embedding(), blocks: try rounded.blocks(), head: try model.head(), moving: moving,
        movesTables: false, towards: originals, reach: reach)
    }
    for (block, still) in zip(try trainable(0.4).blocks, try trainable(0).blocks) {
      for (name, latent) in block.latents {
        let quantized = try #require(block.original[name].weight as? QuantizedMatrix)
        #expect(still.latents[name]?.latents == quantized.codes.map { Float($0) })
        let original = originals[block.original.index][name].weight.dense()
        for (place, code) in quantized.codes.enumerated() {
          let (row, column) = (place / quantized.columns, place % quantized.columns)
          let wanted = original[row, column] / quantized.scales[row, column / quantized.groupSize] + quantized.scheme.middle
          let expected = Float(code) + max(-0.4, min(wanted - Float(code), 0.4))
          #expect(abs(latent.latents[place] - expected) < 1e-5)
        }
        #expect(latent.quantized() == quantized)
      }
    }
  }

  /// However many passes there are, the teacher is the model that came in.
  @Test func theSecondLearnsFromTheOriginalToo() async throws {
    let distilling = "{ distill: { moves: [scales, norms], epochs: 4, batch: 2, scale_rate: 0.01, rate: 0.01, validate_every: 1 } }"
    let swept = try await Swept("\(Self.rounding), \(distilling), \(distilling)", try TinyModel.model())
    let records = swept.report.training
    #expect(records.count == 2 && records[0].bestStep > 0)
    #expect(abs(records[1].lossBefore - records[0].lossAfter) < 1e-9)
  }

  /// Weights in other coordinates say nothing about where latents should begin.
  @Test func rotatedWeightsAreNotTheTeachers() async throws {
    let model = try TinyModel.model()
    let swept = try await Swept(
      "{ rotate: {} }, \(Self.rounding), { distill: { moves: [weights, scales], epochs: 1, batch: 2 } }", model)
    #expect(swept.report.remarks.contains { $0.contains("latents begin at their codes") })
  }
}

extension Evaluator {
  fileprivate static func divergence(of student: Model, from teacher: Model) throws -> Double {
    let tokens = TinyModel.sequences(20, length: 40).suffix(8).flatMap { $0 }
    return try Evaluator(window: 40).evaluate(student, against: teacher, on: tokens).divergence!.mean
  }
}
