import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Passes
@testable import Training

struct OutputMomentsTests {
  private static func moments(_ model: Model, _ sequences: [[Int32]], memory: Int = .max) async throws -> OutputMoments.Answer {
    try await OutputMoments().answer(
      for: model,
      in: AnalysisContext(
        SweepOptions(calibration: sequences, activationMemory: memory, scratch: FileManager.default.temporaryDirectory),
        progress: { _, _ in }, remark: { _ in }))
  }

  /// Of one token, a weight's gradient is gᵀ · x, so that dW · dWᵀ is gᵀ · g times the square of x; the way back itself is held to PyTorch's.
  @Test(arguments: ["llama-plain", "qwen3", "gemma2"]) func oneTokenGivesItsGradient(_ family: String) async throws {
    let model = try Families.model(family)
    let sequence: [Int32] = [7]
    let answer = try await Self.moments(model, [sequence])
    var moving = MovingParameters()
    moving.weights = true
    let trainable = TrainableModel(
      model.description, embedding: try model.embedding(), blocks: try model.description.blocks.indices.map { try model.block($0) },
      head: try model.head(), moving: moving, movesTables: false)
    let gradient = try trainable.gradient(of: SampledLabel(), on: [sequence])
    for (block, pulled) in zip(trainable.blocks, gradient.blocks) {
      for (name, weight) in pulled.weights {
        let expected = weight.times(transposed: weight)
        guard let found = try answer.moment(of: block.original.fullName(of: name)) else {
          #expect(expected.elements.allSatisfy { $0 == 0 }, "\(name)")
          continue
        }
        let (a, b) = (expected.elements.map { Double($0) }, found.elements.map { Double($0) })
        let trace = (0..<expected.rows).reduce((0.0, 0.0)) { ($0.0 + Double(expected[$1, $1]), $0.1 + Double(found[$1, $1])) }
        guard trace.0 > 0 else { continue }
        #expect(trace.1 > 0, "\(name)")
        let worst = zip(a, b).map { abs($0 / trace.0 - $1 / trace.1) }.max() ?? 0
        #expect(worst < 1e-5, "\(name): \(worst)")
      }
    }
  }

  /// A sum over sequences, whatever their number, the memory and the threads.
  @Test func sequencesAdd() async throws {
    let model = try TinyModel.model()
    let sequences = TinyModel.sequences(3, length: 12)
    let name = "model.layers.0.mlp.up_proj"
    let all = try #require(try await Self.moments(model, sequences).moment(of: name))
    let spilled = try await Self.moments(model, sequences, memory: 0).moment(of: name)
    let alone = try await Parallel.$width.withValue(1) { try await Self.moments(model, sequences).moment(of: name) }
    #expect(spilled == all && alone == all)
    var sum = Matrix(rows: all.rows, columns: all.columns)
    for sequence in sequences { sum.add(try #require(try await Self.moments(model, [sequence]).moment(of: name))) }
    let largest = all.elements.map { abs($0) }.max() ?? 0
    #expect(zip(sum.elements, all.elements).allSatisfy { abs($0 - $1) <= 1e-5 * largest } && largest > 0)
  }

  /// Draws follow the prediction: the mean of what labels pull is nothing.
  @Test func labelsAreDrawnFromThePrediction() {
    var counts = [0, 0, 0]
    var random = KeyedRandomness(seed: 1, key: "logits")
    for _ in 0..<6000 {
      // A shift of all logits changes the draw and not the distribution.
      let shift = Float.random(in: -1...1, using: &random)
      var logits = [log(0.2), log(0.5), log(0.3)].map { Float($0) + shift }
      _ = logits.withUnsafeMutableBufferPointer { SampledLabel().pull($0.baseAddress!, teacher: nil, next: nil, count: 3) }
      counts[logits.firstIndex { $0 < 0 }!] += 1
    }
    for (count, share) in zip(counts, [0.2, 0.5, 0.3]) { #expect(abs(Double(count) / 6000 - share) < 0.03, "\(counts)") }
  }
}
