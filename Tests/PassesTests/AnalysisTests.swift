import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

/// Counts the weights of the model, and how often it was asked.
private struct WeightCount: Analysis {
  static let asked = Mutex([String: Int]())
  let key: String

  func answer(for model: Model, in context: AnalysisContext) async throws -> [Int] {
    Self.asked.withLock { $0[key, default: 0] += 1 }
    let count = try Pipeline([]).plan(for: model).reduce(0) { $0 + $1.rows * $1.columns }
    return [count, Int(context.seed), context.calibration.count]
  }
}

private struct Curious: Pass {
  static let name = "curious"
  var keys = ["a"]
  var usesCalibration: Bool { false }
  var analyses: [any Analysis] { keys.map { WeightCount(key: $0) } }

  init() {}
  init(_ keys: [String]) { self.keys = keys }

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    for key in keys {
      let answer = context.answer(to: WeightCount(key: key))
      context.record(part.inputGroups[0].linears[0], in: part, ["count": Double(answer[0]), "seed": Double(answer[1])])
    }
  }
}

/// Draws a number for every linear.
private struct Drawing: Pass {
  static let name = "drawing"
  var layers = LayerSelector()
  var usesCalibration: Bool { false }

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    for name in part.groups(layers).flatMap(\.linears) {
      var random = context.randomness(for: name, in: part)
      context.record(name, in: part, ["draw": Double(UInt32.random(in: 0 ... .max, using: &random))])
    }
  }
}

@Suite struct AnalysisTests {
  @Test func eachQuestionIsAnsweredOnce() async throws {
    let (first, second) = (UUID().uuidString, UUID().uuidString)
    let options = SweepOptions(calibration: [[1, 2]], seed: 9)
    let report = try await Pipeline([Curious([first]), Curious([second, first]), Curious([first])]).run(
      on: TinyModel.model(), options: options, into: Shelf())
    #expect(WeightCount.asked.withLock { [$0[first], $0[second]] } == [1, 1])
    // Embedding and head 64 × 32 each, a block 9216.
    #expect(report.layers.count == 12)
    #expect(report.layers.allSatisfy { $0.metrics == ["count": 22528, "seed": 9] })
  }

  @Test func nothingIsAnAnswerToo() async throws {
    struct Nothing: Analysis {
      func answer(for model: Model, in context: AnalysisContext) async throws -> Int? { nil }
    }
    struct Something: Analysis {
      func answer(for model: Model, in context: AnalysisContext) async throws -> Int? { 7 }
    }
    struct Asking: Pass {
      static let name = "asking"
      var usesCalibration: Bool { false }
      var analyses: [any Analysis] { [Nothing(), Something()] }
      func run(on part: inout any ModelPart, in context: PassContext) throws {
        #expect(context.answer(to: Nothing()) == nil && context.answer(to: Something()) == 7)
      }
    }
    _ = try await Pipeline([Asking()]).run(on: TinyModel.model(), into: Shelf())
  }

  @Test func drawsDependOnSeedAndPlaceAlone() async throws {
    func draws(seed: UInt64, _ include: String...) async throws -> [String: Double] {
      var drawing = Drawing()
      drawing.layers = LayerSelector(include: include)
      let report = try await Pipeline([drawing]).run(on: TinyModel.model(), options: SweepOptions(seed: seed), into: Shelf())
      return Dictionary(uniqueKeysWithValues: report.layers.map { ($0.layer, $0.metrics["draw"]!) })
    }
    let (all, again, other) = (try await draws(seed: 1, "*"), try await draws(seed: 1, "*"), try await draws(seed: 2, "*"))
    #expect(all.count == 14 && Set(all.values).count == 14)
    #expect(all == again)
    #expect(all.allSatisfy { other[$0.key] != $0.value })
    for (name, draw) in try await draws(seed: 1, "mlp.down_proj") { #expect(all[name] == draw) }
  }
}

/// Says how the sequences are divided.
private struct Division: Analysis {
  func answer(for model: Model, in context: AnalysisContext) async throws -> [[Int32]] {
    let (fitted, probes) = context.heldOut(2)
    return [fitted.map { $0[0] }, probes.map { $0[0] }]
  }
}

private struct Divider: Pass {
  static let name = "divider"
  var usesProbes: Bool { true }
  var analyses: [any Analysis] { [Division()] }

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    if part.place == .embedding { context.remark("\(context.answer(to: Division()))") }
  }
}

struct ProbeTests {
  @Test(arguments: [
    (calibration: 5, probes: 0, division: "[[0, 1, 2], [3, 4]]"), (4, 0, "[[0, 1, 2, 3], [2, 3]]"), (1, 0, "[[0], [0]]"),
    (5, 3, "[[0, 1, 2, 3, 4], [100, 101, 102]]"),
  ])
  func probesComeFromTheRecipeOrTheEndOfTheCalibrationData(_ calibration: Int, _ probes: Int, _ division: String) async throws {
    var options = SweepOptions(calibration: (0..<calibration).map { [Int32($0), 1] })
    options.probes = (0..<probes).map { [Int32(100 + $0), 1] }
    let report = try await Pipeline([Divider()]).run(on: TinyModel.model(dtype: .float32), options: options, into: Shelf())
    #expect(report.remarks == [division])
  }
}
