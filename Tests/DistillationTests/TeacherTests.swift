import CompressKit
import TestSupport
import Testing

struct TeacherTests {
  private static let rounding = "{ rtn: { bits: 2, group_size: 16 } }"

  /// A model of another depth, with the same vocabulary.
  private static func deeper() throws -> Model {
    try TinyModel.model(TinyModel.config.replacing(#""num_hidden_layers":2"#, with: #""num_hidden_layers":3"#))
  }

  @Test func aNamedTeacherIsLearnedFrom() async throws {
    let (student, teacher) = (try TinyModel.model(), try Self.deeper())
    let swept = try await Swept(
      "{ distill: { teacher: deeper, moves: [weights, norms], epochs: 8, batch: 4, rate: 0.003 } }", student,
      sequences: TinyModel.sequences(100, length: 40).suffix(80).map { $0 }, teachers: ["deeper": teacher])
    let (before, after) = (try Evaluator.divergence(of: student, from: teacher), try swept.divergence(from: teacher))
    #expect(after < 0.97 * before, "\(after) against \(before)")
    let record = try #require(swept.report.training.first)
    // What it began with is its divergence from the teacher named, not from itself, which is nothing.
    #expect(record.lossBefore > 0.5 * before && record.seconds > 0)
  }

  @Test func aTeacherThatNobodyOpenedIsAnError() async throws {
    let model = try TinyModel.model()
    await #expect(throws: PipelineError.self) { try await Swept("{ distill: { teacher: elsewhere } }", model) }
  }

  /// Codes that were hard to choose are near to where they change; codes whose latents begin in their middle are not.
  @Test(arguments: [(0.0, false), (0.45, true)]) func latentsBeginTowardsTheTeachersWeights(_ reach: Double, _ moves: Bool) async throws {
    let model = try TinyModel.model()
    let rounded = try await Swept(Self.rounding, model).blocks()
    let swept = try await Swept(
      "\(Self.rounding), { distill: { moves: [weights], epochs: 2, batch: 2, code_rate: 0.02, reach: \(reach), validate_every: 1 } }", model
    ).blocks()
    var moved = 0
    for (old, new) in zip(rounded, swept) {
      for (name, linear) in new.linears {
        moved += zip((linear.weight as! QuantizedMatrix).codes, (old[name].weight as! QuantizedMatrix).codes).count { $0 != $1 }
      }
    }
    #expect((moved > 0) == moves, "\(moved) codes")
  }

  /// However many passes there are, the teacher is the model that came in.
  @Test func theSecondLearnsFromTheOriginalToo() async throws {
    let distilling = "{ distill: { moves: [weights, norms], epochs: 2, batch: 2, rate: 0.003, validate_every: 1 } }"
    let swept = try await Swept("{ prune_depth: { ratio: 0.5 } }, \(distilling), \(distilling)", try Families.model("olmo3"))
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
