import CompressKit
import Foundation
import TestSupport
import Testing

struct EmbeddingSimilarityTests {
  private let tokens = TinyModel.sequences(1, length: 70)[0]

  private static func other() throws -> Model {
    var checkpoint = try EditableCheckpoint(try Families.configuration("bert"))
    let name = "encoder.layer.0.output.dense.weight"
    let weight = try #require(checkpoint[name])
    checkpoint[name] = Tensor(weight.floats().map { $0 * 1.3 }, shape: weight.shape, dtype: .float32)
    return try checkpoint.model()
  }

  private func cosine(_ a: [Double], _ b: [Double]) -> Double {
    func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    return dot(a, b) / (dot(a, a) * dot(b, b)).squareRoot()
  }

  @Test func figuresAreThoseOfTheDefinition() throws {
    let (model, reference) = (try Self.other(), try Families.model("bert"))
    let found = try Evaluator(window: 16).similarity(of: model, to: reference, on: tokens)
    var (pooled, tokenwise): ([Double], [Double]) = ([], [])
    for start in [0, 16, 32, 48] {
      let window = Array(tokens[start..<start + 16])
      func rows(_ model: Model) throws -> [[Double]] {
        let states = try model.hiddenStates(of: window)
        return (0..<16).map { row in (0..<32).map { Double(states[row, $0]) } }
      }
      let (own, other) = (try rows(model), try rows(reference))
      func mean(_ rows: [[Double]]) -> [Double] { (0..<32).map { column in rows.reduce(0) { $0 + $1[column] } / 16 } }
      pooled.append(cosine(mean(own), mean(other)))
      tokenwise.append(zip(own, other).reduce(0) { $0 + cosine($1.0, $1.1) } / 16)
    }
    for (summary, values) in [(found.pooled, pooled), (found.tokenwise, tokenwise)] {
      let sorted = values.sorted()
      #expect(abs(summary.mean - values.reduce(0, +) / 4) < 1e-6 && abs(summary.minimum - sorted[0]) < 1e-6)
      #expect(abs(summary.fifthPercentile - (sorted[0] + 0.15 * (sorted[1] - sorted[0]))) < 1e-6)
      #expect(summary.mean < 0.9999 && summary.minimum > 0.5)
    }
    #expect(found.sequences == 4 && found.tokens == 64)
    // Nothing depends on how many windows fit into memory at once.
    #expect(try Evaluator(window: 16, memory: 1).similarity(of: model, to: reference, on: tokens) == found)
    let same = try Evaluator(window: 16).similarity(of: reference, to: reference, on: tokens)
    #expect(abs(same.pooled.minimum - 1) < 1e-12 && abs(same.tokenwise.mean - 1) < 1e-12)
  }

  @Test func aSummaryOfOneAndOfMany() {
    let one = EmbeddingSimilarity.Summary([0.25])
    #expect(one.mean == 0.25 && one.minimum == 0.25 && one.fifthPercentile == 0.25)
    let many = EmbeddingSimilarity.Summary((0...100).map(Double.init).reversed())
    #expect(many.mean == 50 && many.minimum == 0 && many.fifthPercentile == 5)
  }

  @Test func whatCannotBeComparedIsRefused() throws {
    let (encoder, decoder) = (try Families.model("bert"), try TinyModel.model())
    let evaluator = Evaluator(window: 16)
    #expect(throws: EvaluationError.noLogits) { try evaluator.evaluate(encoder, on: tokens) }
    #expect(throws: EvaluationError.kindsDiffer) { try evaluator.evaluate(decoder, against: encoder, on: tokens) }
    #expect(throws: EvaluationError.kindsDiffer) { try evaluator.similarity(of: encoder, to: decoder, on: tokens) }
    #expect(throws: EvaluationError.noLogits) { try evaluator.retrieval(of: encoder, RetrievalProbe(), on: tokens) }
    #expect(throws: EvaluationError.tooShort(tokens: 1)) { try evaluator.similarity(of: encoder, to: encoder, on: [1]) }
    let reason = try #require(encoder.description.cacheObstacle)
    #expect(throws: EvaluationError.noCache(reason)) {
      try Evaluator(window: 16, chunk: 4).similarity(of: encoder, to: encoder, on: tokens)
    }
    #expect(throws: SequenceTooLong.self) { try Evaluator(window: 66).similarity(of: encoder, to: encoder, on: tokens) }
    func changed(_ key: String, _ value: Int) throws -> Model {
      var config = try ModelConfig(text: Families.configuration("bert").utf8)
      config.json[key] = .integer(value)
      return try TinyModel.model(config.json.text())
    }
    #expect(throws: EvaluationError.vocabulariesDiffer(64, 65)) {
      try evaluator.similarity(of: encoder, to: try changed("vocab_size", 65), on: tokens)
    }
    #expect(throws: EvaluationError.hiddenSizesDiffer(32, 64)) {
      try evaluator.similarity(of: encoder, to: try changed("hidden_size", 64), on: tokens)
    }
  }
}
