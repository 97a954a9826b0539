public import ArgumentParser
public import CompressKit
import Foundation

struct EvalCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "eval", abstract: "Score a model, compressed or not: perplexity, and divergence from a reference.",
    discussion: "Encoders have no perplexity: they are scored by the cosine of their hidden states to those of a reference.")

  @Argument(help: ArgumentHelp("The model directory.", valueName: "model"), completion: .directory)
  var model: String

  @Option(
    name: .long,
    help: ArgumentHelp("Text to score, or JSON lines (.jsonl), plain or gzipped; the model's tokenizer reads it.", valueName: "file"),
    completion: .file())
  var text: String?

  @Option(name: .long, help: ArgumentHelp("The field of JSON lines that holds the text.", valueName: "name"))
  var field = "text"

  @Option(
    name: .long, help: ArgumentHelp("Token ids to score, a NumPy or .bin file.", valueName: "file"),
    completion: .file(extensions: ["npy", "bin"]))
  var tokens: String?

  @Option(
    name: .long, help: ArgumentHelp("Also compare with this model on the same tokens; encoders need one.", valueName: "model"),
    completion: .directory)
  var reference: String?

  @Option(name: .long, help: ArgumentHelp("Tokens in a window.", valueName: "n"))
  var window = 2048

  @Option(name: .long, help: ArgumentHelp("Tokens between two windows' starts (default: the window).", valueName: "n"))
  var stride: Int?

  @Option(
    name: .long,
    help: ArgumentHelp("Tokens fed at a time through the key-value cache (default: all, or 32 where a policy is in use).", valueName: "n"))
  var chunk: Int?

  @Option(
    name: .long,
    help: ArgumentHelp("Also measure what it is worth to have read a string before, on so many windows.", valueName: "n"))
  var retrieval: Int?

  @Option(name: .long, help: ArgumentHelp("Score only so many tokens, from the start.", valueName: "n"))
  var limit: Int?

  @Option(name: .long, help: "One beginning-of-sequence token at the very start: auto (text only, as the tokenizer does), always or never.")
  var bos = BeginningOfSequence.auto

  @Option(
    name: .long,
    help: ArgumentHelp(
      "Keep what is done in this directory until the figures are there, so that the same command goes on where it was interrupted.",
      valueName: "dir"), completion: .directory)
  var journal: String?

  @Flag(name: .long, help: "Start over, whatever an interrupted evaluation has left in --journal.")
  var fresh = false

  @Flag(name: .long, help: "Print one JSON object.")
  var json = false

  @OptionGroup var cache: CacheOption
  @OptionGroup var machine: MachineOptions

  func validate() throws {
    guard (text == nil) != (tokens == nil) else { throw ValidationError("either --text or --tokens names what to score") }
    try require("--window", window, atLeast: 2)
    try require("--stride", stride)
    try require("--chunk", chunk)
    try require("--retrieval", retrieval)
    try require("--limit", limit, atLeast: 2)
    if fresh, journal == nil { throw ValidationError("--fresh starts a journal anew; --journal names it") }
  }

  func run() async throws {
    let progress = Progress(machine.progress)
    defer { progress.end() }
    let (options, memory) = (self, try machine.memory())
    let figures = try await machine.run { try options.score(memory: memory, progress) }
    progress.end()
    try printResult(json ? figures.json : figures.text)
  }

  private func score(memory: Int, _ progress: Progress) throws -> (json: String, text: String) {
    let checkpoint = try Checkpoint(URL(userPath: model))
    let source = try TokenSource(
      text: text.map { TextSources([TextSource(file: $0, field: field)]) }, tokens: tokens,
      bases: [URL(filePath: FileManager.default.currentDirectoryPath)])
    let tokens = try source.tokens(for: checkpoint, bos: bos, limit: limit)
    let subject = try cache.applied(to: try CompressCommand.toolkit.model(checkpoint))
    let compared = try reference.map { try Checkpoint(URL(userPath: $0)) }
    let other = try compared.map { try CompressCommand.toolkit.model($0) }
    let descriptions = ([subject] + (other.map { [$0] } ?? [])).map(\.description)
    let whole = Evaluator(window: window, stride: stride, chunk: chunk)
    let need = whole.memoryNeed(of: descriptions, tokens: tokens.count, retrieval: retrieval ?? 0)
    try Machine.require(Machine.ownMemory + need.least, limit: memory)
    let evaluator = whole.within(memory - Machine.ownMemory, of: descriptions, tokens: tokens.count, retrieval: retrieval ?? 0)
    for remark in whole.remarks(on: subject.description, tokens: tokens.count) { progress.observe(.remark(remark)) }
    guard subject.description.hasLogits else {
      let figures = try compare(subject, other, evaluator, tokens, progress)
      return (figures.json.text(), figures.text)
    }
    let kept = try journal.map {
      try KeptEvaluation(
        at: URL(userPath: $0), of: [checkpoint] + (compared.map { [$0] } ?? []), evaluator, on: tokens,
        settings: "cache \(cache.cache ?? "none")",
        fresh: fresh)
    }
    do {
      let figures = try predict(subject, other, evaluator, tokens, kept?.evaluation, progress)
      kept?.end()
      return (figures.json.text(), figures.text)
    } catch {
      guard let journal, kept?.settle(after: error) == true else { throw error }
      throw KeptRun(cause: error, journal: journal, doingWithout: "leave out --journal")
    }
  }

  private func predict(
    _ subject: Model, _ other: Model?, _ evaluator: Evaluator, _ tokens: [Int32], _ journal: EvaluationJournal?, _ progress: Progress
  ) throws -> Figures {
    progress.observe(.step("evaluate"))
    let start = ContinuousClock.now
    let result = try evaluator.evaluate(subject, against: other, on: tokens, journal: journal) { done, total in
      progress.observe(.blockEnded(name: "evaluation", index: done - 1, count: total, took: start.duration(to: .now)))
    }
    let seconds = start.duration(to: .now).inSeconds
    let probes = retrieval.map { count in RetrievalProbe.Strings.allCases.map { RetrievalProbe($0, sequences: count) } } ?? []
    let found = try probes.map { probe in
      Figures.Retrieval(
        strings: probe.strings, own: try evaluator.retrieval(of: subject, probe, on: tokens),
        reference: try other.map { try evaluator.retrieval(of: $0, probe, on: tokens) })
    }
    return Figures(result: result, retrieval: found, seconds: seconds, peakMemory: Machine.peakMemory)
  }

  /// - Throws: `InvalidOption` for a missing reference and for what only models with logits can be asked.
  private func compare(
    _ subject: Model, _ other: Model?, _ evaluator: Evaluator, _ tokens: [Int32], _ progress: Progress
  ) throws -> SimilarityFigures {
    guard let other else {
      throw InvalidOption("--reference", "the model is an encoder without logits; only its distance from another can be scored, name one")
    }
    if retrieval != nil { throw InvalidOption("--retrieval", "\(EvaluationError.noLogits)") }
    if chunk != nil, let reason = subject.description.cacheObstacle { throw InvalidOption("--chunk", reason) }
    if journal != nil { throw InvalidOption("--journal", "what encoders are compared by is not kept; leave it out") }
    progress.observe(.step("evaluate"))
    let start = ContinuousClock.now
    let cosine = try evaluator.similarity(of: subject, to: other, on: tokens) { done, total in
      progress.observe(.blockEnded(name: "evaluation", index: done - 1, count: total, took: start.duration(to: .now)))
    }
    return SimilarityFigures(cosine: cosine, seconds: start.duration(to: .now).inSeconds, peakMemory: Machine.peakMemory)
  }
}

extension BeginningOfSequence: ExpressibleByArgument {}

private struct Figures: Sendable {
  struct Retrieval: Sendable {
    let strings: RetrievalProbe.Strings
    let own: RetrievalProbe.Result
    let reference: RetrievalProbe.Result?
  }

  let result: Evaluator.Result
  let retrieval: [Retrieval]
  let seconds: Double
  let peakMemory: Int?

  private var tokensPerSecond: Double { Double(result.tokensRun) / max(seconds, 1e-9) }

  var json: JSON {
    let perplexity = result.perplexity
    return .object([
      .init("perplexity", .double(perplexity.value)),
      .init("perplexity_interval", perplexity.interval.map { .array([.double($0.lowerBound), .double($0.upperBound)]) } ?? .null),
      .init("negative_log_likelihood", .double(perplexity.negativeLogLikelihood)), .init("tokens", .integer(perplexity.tokens)),
      .init("windows", .integer(perplexity.windows)), .init("kl_divergence", result.divergence.map { .double($0.mean) } ?? .null),
      .init("kl_standard_error", result.divergence?.standardError.map { .double($0) } ?? .null),
      .init("top1_agreement", result.divergence.map { .double($0.topAgreement) } ?? .null),
      .init("reference_perplexity", result.reference.map { .double($0.value) } ?? .null),
      .init("chunk", result.cache.chunk.map { .integer($0) } ?? .null),
      .init("cache_bytes_per_token", .double(result.cache.bytesPerToken)),
      .init("reference_cache_bytes_per_token", result.referenceCache.map { .double($0.bytesPerToken) } ?? .null),
      .init("retrieval", Self.json(retrieval) { $0.own }), .init("reference_retrieval", Self.json(retrieval) { $0.reference }),
      .init("tokens_per_second", .double(tokensPerSecond)), .init("peak_memory_bytes", peakMemory.map { .integer($0) } ?? .null),
    ])
  }

  private static func json(_ probes: [Retrieval], _ side: (Retrieval) -> RetrievalProbe.Result?) -> JSON {
    .object(
      probes.compactMap { probe in
        side(probe).map { result in
          .init(
            probe.strings.rawValue,
            .object([
              .init("gain", .double(result.gain)), .init("standard_error", result.standardError.map { .double($0) } ?? .null),
              .init("recalled", .double(result.recalled)), .init("guessed", .double(result.guessed)),
              .init("tokens", .integer(result.tokens)),
            ]))
        }
      })
  }

  /// Behind a mean; nothing for that of a single value.
  private static func text(_ standardError: Double?, places: Int) -> String {
    standardError.map { " ± \($0.rounded(toPlaces: places))" } ?? ""
  }

  private static func text(_ retrieval: RetrievalProbe.Result) -> String {
    func percent(_ share: Double) -> String { (share * 100).rounded(toPlaces: 2) }
    return "+\(retrieval.gain.rounded(toPlaces: 4))\(text(retrieval.standardError, places: 4)) nats a token, "
      + "most likely \(percent(retrieval.recalled)) % instead of \(percent(retrieval.guessed)) %"
  }

  var text: String {
    let perplexity = result.perplexity
    let interval =
      perplexity.interval.map { "95 %: \($0.lowerBound.rounded(toPlaces: 4)) to \($0.upperBound.rounded(toPlaces: 4))" }
      ?? "no interval: one window is no sample"
    var lines = [
      "perplexity      \(perplexity.value.rounded(toPlaces: 6))  (\(interval))",
      "tokens scored   \(perplexity.tokens) in \(perplexity.windows) window\(perplexity.windows == 1 ? "" : "s")",
    ]
    if let divergence = result.divergence, let reference = result.reference {
      lines += [
        "reference       \(reference.value.rounded(toPlaces: 6))",
        "KL divergence   \(divergence.mean.rounded(toPlaces: 6))\(Self.text(divergence.standardError, places: 6)) nats",
        "same top token  \((divergence.topAgreement * 100).rounded(toPlaces: 2)) %",
      ]
    }
    if result.cache.chunk != nil || result.referenceCache.map({ $0.bytesPerToken != result.cache.bytesPerToken }) == true {
      let before = result.referenceCache.map { ", of the reference \($0.bytesPerToken.rounded(toPlaces: 1))" } ?? ""
      let chunk = result.cache.chunk.map { ", \($0) tokens at a time" } ?? ""
      lines.append("cache           \(result.cache.bytesPerToken.rounded(toPlaces: 1)) bytes per token\(before)\(chunk)")
    }
    for probe in retrieval {
      lines.append("\(probe.strings.rawValue) read before  \(Self.text(probe.own))")
      if let reference = probe.reference { lines.append("  of reference  \(Self.text(reference))") }
    }
    lines.append("speed           \(tokensPerSecond.rounded(toPlaces: 0)) tokens/s")
    if let peakMemory { lines.append("peak memory     \(ByteCount.text(peakMemory))") }
    return lines.joined(separator: "\n")
  }
}
