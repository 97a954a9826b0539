import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

struct EvaluatorTests {
  private let tokens = TinyModel.sequences(1, length: 70)[0]

  private static func other() throws -> Model {
    var checkpoint = try EditableCheckpoint()
    let weight = try #require(checkpoint["model.layers.0.mlp.down_proj.weight"])
    checkpoint["model.layers.0.mlp.down_proj.weight"] = Tensor(weight.floats().map { $0 * 1.3 }, shape: weight.shape, dtype: .float32)
    return try checkpoint.model()
  }

  /// log softmax of every position, in double.
  private func logProbabilities(_ model: Model, _ window: [Int32]) throws -> [[Double]] {
    let logits = try model.logits(of: window)
    return (0..<logits.rows).map { row in
      let values = (0..<logits.columns).map { Double(logits[row, $0]) }
      let sum = log(values.reduce(0) { $0 + exp($1) })
      return values.map { $0 - sum }
    }
  }

  /// Windows as [start, first scored index), and their scores by the definition.
  private func scores(_ model: Model, _ windows: [(start: Int, first: Int)], length: Int) throws -> [[Double]] {
    try windows.map { window in
      let part = Array(tokens[window.start..<window.start + length])
      let table = try logProbabilities(model, part)
      return (window.first..<length).map { -table[$0 - 1][Int(part[$0])] }
    }
  }

  @Test func perplexityIsThatOfTheDefinition() throws {
    let model = try TinyModel.model()
    let result = try Evaluator(window: 16).evaluate(model, on: tokens)
    let expected = try scores(model, [(0, 1), (16, 1), (32, 1), (48, 1)], length: 16)
    let mean = expected.joined().reduce(0, +) / 60
    #expect(abs(result.perplexity.negativeLogLikelihood - mean) < 1e-6)
    #expect(abs(result.perplexity.value - exp(mean)) < 1e-5 * exp(mean))
    // The last six tokens fill no window.
    #expect(result.perplexity.tokens == 60)
    #expect(result.perplexity.windows == 4)
    #expect(result.tokensRun == 64)
    #expect(result.reference == nil && result.divergence == nil)
    let means = expected.map { $0.reduce(0, +) / 15 }
    let variance = means.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 3
    let error = (variance / 4).squareRoot()
    #expect(abs(try #require(result.perplexity.standardError) - error) < 1e-6)
    let interval = try #require(result.perplexity.interval)
    #expect(abs(interval.lowerBound - exp(mean - 1.96 * error)) < 1e-4)
    #expect(abs(interval.upperBound - exp(mean + 1.96 * error)) < 1e-4)
  }

  @Test func overlappingWindowsScoreEveryTokenOnce() throws {
    let model = try TinyModel.model()
    let result = try Evaluator(window: 16, stride: 5).evaluate(model, on: tokens)
    let windows = stride(from: 0, through: 54, by: 5).map { (start: $0, first: $0 == 0 ? 1 : 11) }
    let expected = try scores(model, windows, length: 16).joined()
    #expect(expected.count == 65)
    #expect(result.perplexity.tokens == 65)
    #expect(result.perplexity.windows == 11)
    #expect(abs(result.perplexity.negativeLogLikelihood - expected.reduce(0, +) / 65) < 1e-6)
    let whole = try Evaluator(window: 16, stride: 16).evaluate(model, on: tokens)
    #expect(whole == (try Evaluator(window: 16).evaluate(model, on: tokens)))
    // Gaps between windows score what each window holds.
    #expect(try Evaluator(window: 16, stride: 20).evaluate(model, on: tokens).perplexity.tokens == 45)
  }

  @Test func whatIsShorterThanAWindowIsScoredWhole() throws {
    let model = try TinyModel.model()
    let result = try Evaluator(window: 100).evaluate(model, on: tokens)
    #expect(result.perplexity.tokens == 69)
    #expect(result.perplexity.windows == 1)
    #expect(result.perplexity.standardError == nil && result.perplexity.interval == nil)
    let expected = try scores(model, [(0, 1)], length: 70).joined().reduce(0, +) / 69
    #expect(abs(result.perplexity.negativeLogLikelihood - expected) < 1e-6)
    #expect(try Evaluator(window: 100).evaluate(model, on: [1, 2]).perplexity.tokens == 1)
    for count in [0, 1] {
      #expect(throws: EvaluationError.tooShort(tokens: count)) { try Evaluator().evaluate(model, on: Array(tokens.prefix(count))) }
    }
  }

  @Test func longWindowsAreScoredInTiles() throws {
    let model = try TinyModel.model()
    let long = TinyModel.sequences(1, length: 300)[0]
    let result = try Evaluator(window: 300).evaluate(model, on: long)
    let table = try logProbabilities(model, long)
    let expected = (1..<300).reduce(0.0) { $0 - table[$1 - 1][Int(long[$1])] } / 299
    #expect(abs(result.perplexity.negativeLogLikelihood - expected) < 1e-6)
  }

  @Test func aModelDoesNotDivergeFromItself() throws {
    let model = try TinyModel.model()
    let result = try Evaluator(window: 16).evaluate(model, against: model, on: tokens)
    let divergence = try #require(result.divergence)
    #expect(divergence.mean == 0)
    #expect(divergence.standardError == 0)
    #expect(divergence.topAgreement == 1)
    #expect(result.reference == result.perplexity)
  }

  @Test func divergenceIsThatOfTheDefinition() throws {
    let (model, reference) = (try Self.other(), try TinyModel.model())
    let result = try Evaluator(window: 16).evaluate(model, against: reference, on: tokens)
    var sums: [Double] = []
    var agreements = 0
    for start in stride(from: 0, to: 64, by: 16) {
      let part = Array(tokens[start..<start + 16])
      let (q, p) = (try logProbabilities(model, part), try logProbabilities(reference, part))
      sums.append((0..<15).reduce(0) { sum, row in sum + zip(p[row], q[row]).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) } })
      agreements += (0..<15).count { p[$0].firstIndex(of: p[$0].max()!) == q[$0].firstIndex(of: q[$0].max()!) }
    }
    let divergence = try #require(result.divergence)
    let mean = sums.reduce(0, +) / 60
    #expect(mean > 1e-4, "the models differ")
    #expect(abs(divergence.mean - mean) < 1e-7 + 1e-5 * mean)
    #expect(divergence.topAgreement == Double(agreements) / 60)
    let variance = sums.map { $0 / 15 - mean }.reduce(0) { $0 + $1 * $1 } / 3
    #expect(abs(try #require(divergence.standardError) - (variance / 4).squareRoot()) < 1e-6)
    #expect(result.reference == (try Evaluator(window: 16).evaluate(reference, on: tokens).perplexity))
    #expect(result.perplexity == (try Evaluator(window: 16).evaluate(model, on: tokens).perplexity))
  }

  @Test func vocabulariesMustBeTheSame() throws {
    let small = try TinyModel.model(TinyModel.config.replacing("\"vocab_size\":64", with: "\"vocab_size\":63"))
    #expect(throws: EvaluationError.vocabulariesDiffer(64, 63)) {
      try Evaluator().evaluate(try TinyModel.model(), against: small, on: tokens)
    }
  }

  @Test func tokensOutsideTheVocabularyAreRefused() throws {
    #expect(throws: TokenOutOfRange.self) { try Evaluator().evaluate(try TinyModel.model(), on: [1, 64, 2]) }
  }

  @Test func neitherThreadsNorMemoryChangeTheResult() throws {
    let (model, reference) = (try Self.other(), try TinyModel.model())
    func result(_ width: Int, _ memory: Int) throws -> Evaluator.Result {
      try Parallel.$width.withValue(width) {
        try Evaluator(window: 8, stride: 3, memory: memory).evaluate(model, against: reference, on: tokens)
      }
    }
    let whole = try result(1, 1 << 30)
    #expect(try result(2, 1 << 30) == whole)
    #expect(try result(1, 1) == whole)
    #expect(try result(3, 5000) == whole)
  }

  @Test func progressEndsAtItsTotal() throws {
    let seen = Mutex([(Int, Int)]())
    _ = try Evaluator(window: 16).evaluate(try TinyModel.model(), on: tokens) { done, total in seen.withLock { $0.append((done, total)) } }
    let steps = seen.withLock { $0 }
    #expect(steps.map(\.0) == Array(1...4))
    #expect(steps.allSatisfy { $0.1 == 4 })
  }

  private static let stories = "models/stories260K/hf"

  /// Measured with transformers 5.17 in float32: the first 32,768 tokens, 128 windows of 256.
  @Test(.enabled(if: Places.hasAsset(stories) && Places.hasAsset("text/exllamav3_cal/tiny.utf8")))
  func theRealModelHasItsKnownPerplexity() throws {
    let checkpoint = try Checkpoint(Places.asset(Self.stories))
    let text = try String(contentsOf: Places.asset("text/exllamav3_cal/tiny.utf8"), encoding: .utf8)
    let tokens = try Tokenizer(directory: checkpoint.directory).encode(text, addingSpecialTokens: false)
    let result = try Evaluator(window: 256).evaluate(try Model(checkpoint), on: Array(tokens.prefix(32_768)))
    #expect(result.perplexity.windows == 128)
    #expect(abs(result.perplexity.value - 7.320445) < 1e-4)
  }
}

struct PerplexityTests {
  @Test func theIntervalIsTakenBeforeTheExponential() throws {
    let json = "{\"negativeLogLikelihood\":2,\"standardError\":0.1,\"tokens\":10,\"windows\":2}"
    let perplexity = try JSONDecoder().decode(Perplexity.self, from: Data(json.utf8))
    #expect(abs(perplexity.value - 7.38905609893065) < 1e-12)
    let interval = try #require(perplexity.interval)
    #expect(abs(interval.lowerBound - 6.0738945160) < 1e-7)
    #expect(abs(interval.upperBound - 8.9889855494) < 1e-7)
  }

  /// What lies in no window, and what lies beyond the positions that a model was made for, is told.
  @Test func whatFiguresLeaveOutIsTold() throws {
    let model = try TinyModel.model().description
    func remarks(_ evaluator: Evaluator, _ tokens: Int) -> String { evaluator.remarks(on: model, tokens: tokens).joined(separator: "\n") }
    #expect(remarks(Evaluator(window: 16), 160).isEmpty && remarks(Evaluator(window: 16), 161).isEmpty)
    #expect(remarks(Evaluator(window: 16), 31).contains("15 of 31 tokens are in no window of 16"))
    #expect(remarks(Evaluator(window: 16, stride: 24), 64).contains("16 of 64 tokens"))
    #expect(remarks(Evaluator(window: 16, stride: 8), 64).isEmpty && remarks(Evaluator(window: 64), 10).isEmpty)
    #expect(
      model.maximumPositions == 64 && remarks(Evaluator(window: 80), 160).contains("windows of 80 tokens are longer than the model's 64"))
    #expect(remarks(Evaluator(window: 80), 40).isEmpty)
  }

  /// The smallest temperatures take the most likely token, as their limit does, and the largest draw from all alike.
  @Test func temperaturesAtTheirEnds() {
    var random = KeyedRandomness(seed: 1, key: "temperatures")
    let logits: [Float] = [1, 30, -50, 29.5]
    for temperature: Float in [0, .leastNonzeroMagnitude, .leastNormalMagnitude, 1e-37, 1e-30, 1e-3] {
      #expect(Sampling(temperature: temperature).token(from: logits, using: &random) == 1, "\(temperature)")
    }
    let drawn = Set((0..<100).map { _ in Sampling(temperature: .greatestFiniteMagnitude).token(from: logits, using: &random) })
    #expect(drawn == [0, 1, 2, 3])
  }
}
