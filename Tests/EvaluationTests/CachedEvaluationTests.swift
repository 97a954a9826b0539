import CompressKit
import Foundation
import TestSupport
import Testing

struct CachedEvaluationTests {
  private let tokens = TinyModel.sequences(1, length: 200)[0]

  private func model(_ options: String) throws -> Model {
    let recipe = try Recipe(yaml: "passes: [ { kv_cache: \(options) } ]", file: "r.yaml", passes: .standard)
    return try #require(recipe.passes[0] as? CacheCompression).applied(to: try TinyModel.model())
  }

  @Test func chunksWithoutAPolicyScoreTheSame() throws {
    let model = try TinyModel.model()
    let whole = try Evaluator(window: 40).evaluate(model, on: tokens)
    #expect(whole.cache.chunk == nil && whole.cache.bytesPerToken == 2 * 2 * 2 * 8 * 2)
    for chunk in [1, 7, 40, 100] {
      let chunked = try Evaluator(window: 40, chunk: chunk).evaluate(model, against: model, on: tokens)
      #expect(abs(chunked.perplexity.value / whole.perplexity.value - 1) < 1e-6, "\(chunk)")
      #expect(chunked.divergence?.mean == 0 && chunked.cache.chunk == chunk && chunked.referenceCache == chunked.cache)
      #expect(chunked.cache.bytesPerToken == whole.cache.bytesPerToken)
    }
  }

  @Test func quantizationCostsTheSameInAnyChunks() throws {
    let model = try model("{ scheme: rotated, bits: 2, group_size: 8, residual: 4 }")
    let usual = try Evaluator(window: 40).evaluate(model, against: try TinyModel.model(), on: tokens)
    #expect(usual.cache.chunk == Evaluator.usualChunk && usual.referenceCache?.chunk == nil)
    #expect(try #require(usual.divergence).mean > 1e-5)
    for chunk in [1, 16, 40] {
      let other = try Evaluator(window: 40, chunk: chunk).evaluate(model, on: tokens)
      // Sums in another order move a code here and there.
      #expect(abs(other.perplexity.negativeLogLikelihood - usual.perplexity.negativeLogLikelihood) < 1e-3, "\(chunk)")
      #expect(other.cache.bytesPerToken == usual.cache.bytesPerToken)
    }
    // 36 of 40 tokens in 2 + 4 bits, 4 in 16, keys and values of two heads of 8 in two blocks.
    #expect(abs(usual.cache.bytesPerToken - 64 * (36 * 6 + 4 * 16) / 40 / 8) < 1e-9)
  }

  @Test func evictionIsSeenInBytesAndScores() throws {
    let reference = try TinyModel.model()
    for method in ["streaming", "h2o", "snapkv", "tova", "expected_attention"] {
      let model = try model("{ scheme: none, eviction: { method: \(method), budget: 10 } }")
      let result = try Evaluator(window: 40, chunk: 5).evaluate(model, against: reference, on: tokens)
      let before = try #require(result.referenceCache)
      #expect(result.cache.bytesPerToken == before.bytesPerToken / 4, "\(method)")
      #expect(try #require(result.divergence).mean > 1e-6, "\(method)")
    }
  }

  @Test func neitherThreadsNorMemoryChangeTheResult() throws {
    let model = try model("{ scheme: kivi, group_size: 4, residual: 2 }")
    func result(_ width: Int, _ memory: Int) throws -> Evaluator.Result {
      try Parallel.$width.withValue(width) { try Evaluator(window: 8, stride: 3, chunk: 3, memory: memory).evaluate(model, on: tokens) }
    }
    let whole = try result(1, 1 << 30)
    #expect(try result(2, 1 << 30) == whole)
    #expect(try result(3, 20_000) == whole)
  }

  @Test func fixedScalesCannotBeTriedWithoutCalibration() throws {
    #expect(throws: InvalidOption.self) { try model("{ scheme: fp8 }") }
    #expect(throws: InvalidOption.self) { try model("{ scheme: int, group_size: 3 }") }
  }

  // MARK: Retrieval

  @Test(arguments: RetrievalProbe.Strings.allCases)
  func probesRepeatAString(strings: RetrievalProbe.Strings) throws {
    let probe = RetrievalProbe(strings, sequences: 20, length: 6, seed: 3)
    let sequences = try probe.sequences(of: 40, from: tokens)
    #expect(sequences.count == 20 && Set(sequences.map(\.lead)).count > 5)
    for sequence in sequences {
      let (lead, all, control) = (sequence.lead, sequence.tokens, sequence.control)
      let (string, other) = (Array(all[34...]), Array(control[lead..<lead + 6]))
      #expect(all.count == 40 && (1..<28).contains(lead) && Array(all[lead..<lead + 6]) == string && other != string)
      #expect(all.prefix(lead) == control.prefix(lead) && all[(lead + 6)...] == control[(lead + 6)...])
      // What surrounds the string is a stretch of the text; so are the strings, or else their tokens are.
      func isStretch(_ part: [Int32]) -> Bool {
        (0...tokens.count - part.count).contains { Array(tokens[$0...].prefix(part.count)) == part }
      }
      #expect(isStretch(Array(all[..<lead] + all[(lead + 6)..<34])))
      #expect(strings == .random ? Set(string + other).isSubset(of: tokens) : isStretch(string) && isStretch(other))
    }
    #expect(try probe.sequences(of: 40, from: tokens) == sequences)
    #expect(RetrievalProbe().length(in: 160) == 20 && RetrievalProbe().length(in: 4096) == 32)
    #expect(throws: EvaluationError.self) { try probe.sequences(of: 400, from: tokens) }
    #expect(throws: EvaluationError.self) { try probe.sequences(of: 13, from: tokens) }
  }

  @Test func whatIsRetrievedIsThatOfTheDefinition() throws {
    let (model, probe) = (try TinyModel.model(), RetrievalProbe(.text, sequences: 9, length: 5))
    let result = try Evaluator(window: 30).retrieval(of: model, probe, on: tokens)
    var (gains, hits, guesses) = ([Double](), 0, 0)
    for sequence in try probe.sequences(of: 30, from: tokens) {
      func score(_ tokens: [Int32]) throws -> (sum: Double, hits: Int) {
        let logits = try model.logits(of: tokens)
        return (26..<30).reduce(into: (0, 0)) { score, place in
          let row = (0..<64).map { Double(logits[place - 1, $0]) }
          score.0 += row[Int(tokens[place])] - log(row.reduce(0) { $0 + exp($1) })
          score.1 += row.max() == row[Int(tokens[place])] ? 1 : 0
        }
      }
      let (with, without) = (try score(sequence.tokens), try score(sequence.control))
      gains.append((with.sum - without.sum) / 4)
      hits += with.hits
      guesses += without.hits
    }
    let mean = gains.reduce(0, +) / 9
    #expect(abs(result.gain - mean) < 1e-5 && result.tokens == 36)
    #expect(result.recalled == Double(hits) / 36 && result.guessed == Double(guesses) / 36)
    #expect(abs(try #require(result.standardError) - (gains.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 8 / 9).squareRoot()) < 1e-5)
  }

  @Test func nothingIsRememberedOfWhatIsGone() throws {
    let forgetful = try model("{ scheme: none, eviction: { method: streaming, budget: 4, sinks: 0 } }")
    // Four held tokens in each of two blocks: nothing reaches back further than eight. All first strings lie before that.
    let probe = try #require(
      try (0..<200).lazy.map { RetrievalProbe(.random, sequences: 3, length: 4, seed: $0) }.first { probe in
        try probe.sequences(of: 40, from: tokens).allSatisfy { $0.lead + 4 < 40 - 4 - 8 }
      })
    let evaluator = Evaluator(window: 40, chunk: 1)
    #expect(abs(try evaluator.retrieval(of: try TinyModel.model(), probe, on: tokens).gain) > 1e-4)
    #expect(abs(try evaluator.retrieval(of: forgetful, probe, on: tokens).gain) < 1e-6)
  }
}

struct GeneratorTests {
  private let tokens = TinyModel.sequences(1, length: 40)[0]

  @Test func logitsAreThoseOfTheWholeModel() throws {
    let model = try TinyModel.model()
    let expected = try model.logits(of: tokens)
    for pieces in [[40], [1, 39], [10, 20, 10], Array(repeating: 1, count: 40)] {
      var generator = try Generator(model, positions: 40)
      var start = 0
      for count in pieces {
        let logits = try generator.read(Array(tokens[start..<start + count]))
        start += count
        #expect(logits.count == 64)
        for id in 0..<64 { #expect(abs(logits[id] - expected[start - 1, id]) < 1e-4 * max(1, abs(expected[start - 1, id]))) }
      }
      #expect(generator.tokens == 40 && generator.cacheBytes == 40 * 2 * 2 * 2 * 8 * 2)
    }
  }

  @Test func policiesAreObeyed() throws {
    let recipe = try Recipe(
      yaml: "passes: [ { kv_cache: { scheme: int, bits: 2, residual: 2, eviction: { method: tova, budget: 8, recent: 2 } } } ]",
      file: "r.yaml",
      passes: .standard)
    let pass = try #require(recipe.passes[0] as? CacheCompression)
    var generator = try Generator(try pass.applied(to: try TinyModel.model()), positions: 40)
    for token in tokens { _ = try generator.read([token]) }
    // Eight tokens in each of two blocks and two heads: six coded, two plain, keys and values of eight numbers.
    #expect(generator.cacheBytes == 2 * 2 * 2 * (6 * (2 + 4) + 2 * 16))
  }

  @Test func strangersAreRefused() throws {
    var generator = try Generator(try TinyModel.model(), positions: 4)
    #expect(throws: TokenOutOfRange.self) { try generator.read([64]) }
  }

  @Test func drawsFollowTheProbabilities() {
    let logits: [Float] = [0, log(3), log(6), -100]
    var random = KeyedRandomness(seed: 1, key: "draws")
    func shares(_ sampling: Sampling) -> [Double] {
      var counts = [Double](repeating: 0, count: 4)
      for _ in 0..<20_000 { counts[Int(sampling.token(from: logits, using: &random))] += 1 / 20_000 }
      return counts
    }
    #expect(Sampling().token(from: logits, using: &random) == 2 && Sampling().token(from: [1, 1], using: &random) == 0)
    let cases: [(Sampling, [Double])] = [
      (Sampling(temperature: 1), [0.1, 0.3, 0.6, 0]), (Sampling(temperature: 1, topP: 0.8), [0, 1.0 / 3, 2.0 / 3, 0]),
      (Sampling(temperature: 1, topP: 0.5), [0, 0, 1, 0]), (Sampling(temperature: 0.5), [1.0 / 46, 9.0 / 46, 36.0 / 46, 0]),
    ]
    for (sampling, expected) in cases {
      for (share, expected) in zip(shares(sampling), expected) { #expect(abs(share - expected) < 0.015, "\(sampling)") }
    }
  }
}
