internal import CheckpointIO
internal import Evaluation
internal import Foundation
internal import Models
internal import Passes
internal import Recipes

extension Compressor {
  struct EvaluationData: Sendable {
    let tokens: [Int32]
    let source: EvaluationSource
    let file: String

    func remarks(on description: ModelDescription) -> [String] {
      Evaluator(window: source.window, stride: source.stride, chunk: source.chunk).remarks(on: description, tokens: tokens.count)
    }
  }

  /// What the output is to be scored on, checked before the sweep: what cannot be scored must not be found out after hours.
  func evaluationTokens(_ checkpoint: Checkpoint, _ description: ModelDescription) throws -> EvaluationData? {
    guard let source = recipe.evaluation else { return nil }
    let input = try TokenSource(text: source.text, tokens: source.tokens, bases: bases + [checkpoint.directory])
    let tokens = try input.tokens(for: checkpoint, limit: source.limit)
    guard tokens.count >= 2 else { throw EvaluationError.tooShort(tokens: tokens.count) }
    if let stranger = tokens.first(where: { !(0..<description.vocabularySize).contains(Int($0)) }) {
      throw TokenOutOfRange(token: stranger, vocabularySize: description.vocabularySize)
    }
    if source.chunk != nil, let reason = description.cacheObstacle { throw InvalidOption("evaluation.chunk", reason) }
    let longest = min(source.window, tokens.count)
    if let positions = description.positions, longest > positions.count {
      throw SequenceTooLong(tokens: longest, positions: positions.count)
    }
    return EvaluationData(tokens: tokens, source: source, file: input.name)
  }

  /// Scores what was written against the original: by predictions, or by hidden states where there are none.
  func evaluate(
    _ checkpoint: Checkpoint, _ output: URL, _ data: EvaluationData, _ journal: RunJournal?, _ report: inout CompressionReport,
    _ observer: any PipelineObserver
  ) throws {
    let (source, clock) = (data.source, ContinuousClock.now)
    let before = try toolkit.model(checkpoint)
    // The written files, not the model in memory: whatever the writer did is in the figures.
    let after = try toolkit.model(try Checkpoint(output))
    let evaluator = evaluator(for: source).within(
      memoryLimit - Machine.ownMemory, of: [before, after].map(\.description), tokens: data.tokens.count)
    let progress: @Sendable (Int, Int) -> Void = { done, total in
      observer.observe(.blockEnded(name: "evaluation", index: done - 1, count: total, took: clock.duration(to: .now)))
    }
    guard before.description.hasLogits else {
      let cosine = try evaluator.similarity(of: after, to: before, on: data.tokens, progress: progress)
      report.similarity = .init(source: data.file, window: source.window, cosine: cosine)
      return
    }
    let kept = journal.map { EvaluationJournal($0, of: Self.identity(of: evaluator, on: data.tokens)) }
    let result = try evaluator.evaluate(after, against: before, on: data.tokens, journal: kept, progress: progress)
    let (own, reference, divergence) = (result.perplexity, result.reference!, result.divergence!)
    report.evaluation = .init(
      source: data.file, window: source.window, chunk: result.cache.chunk,
      cacheBytesPerTokenBefore: result.referenceCache!.bytesPerToken, cacheBytesPerTokenAfter: result.cache.bytesPerToken,
      tokens: own.tokens, perplexityBefore: reference.value,
      perplexityAfter: own.value, intervalBefore: reference.interval.map { [$0.lowerBound, $0.upperBound] },
      intervalAfter: own.interval.map { [$0.lowerBound, $0.upperBound] }, klDivergence: divergence.mean,
      klStandardError: divergence.standardError, top1Agreement: divergence.topAgreement)
  }

  func evaluator(for source: EvaluationSource) -> Evaluator {
    Evaluator(window: source.window, stride: source.stride, chunk: source.chunk)
  }

  /// What an evaluation's journal says of its settings and tokens.
  static func identity(of evaluator: Evaluator, on tokens: [Int32]) -> String {
    func text(_ number: Int?) -> String { number.map { "\($0)" } ?? "none" }
    return
      "window \(evaluator.window), stride \(text(evaluator.stride)), chunk \(text(evaluator.chunk)), tokens \(Fingerprint.of([tokens]))"
  }
}
