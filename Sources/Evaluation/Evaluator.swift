internal import Foundation
internal import KVCache
public import Models
internal import Passes
internal import Tensors

/// Scores models on token sequences, block by block: memory holds one block and the hidden states of some windows.
public struct Evaluator: Sendable {
  /// Tokens in a window.
  public var window: Int
  /// Tokens between the starts of two windows; `nil` for no overlap. Overlapping windows score only what the one before did not.
  public var stride: Int?
  /// Tokens fed at a time through the key-value cache; `nil` for whole windows at once, except in blocks with a cache policy.
  ///
  /// Eviction happens between chunks, so its cost depends on them; that of quantization does not.
  public var chunk: Int?
  /// Bytes of hidden states that may be held at once; more windows are done in turns.
  public var memory: Int

  /// The chunk of blocks with a cache policy where none is asked for.
  public static let usualChunk = 32

  public init(window: Int = 2048, stride: Int? = nil, chunk: Int? = nil, memory: Int = 1 << 30) {
    precondition(window > 1 && (stride ?? 1) > 0 && (chunk ?? 1) > 0, "a window has at least two tokens, a stride and a chunk one")
    self.window = window
    self.stride = stride
    self.chunk = chunk
    self.memory = memory
  }

  public struct Result: Sendable, Equatable {
    public let perplexity: Perplexity
    public let reference: Perplexity?
    public let divergence: Divergence?
    /// Tokens run through the model, scored or not.
    public let tokensRun: Int
    /// What the key-value cache holds for each token of a window once it has been read.
    public let cache: CacheSize
    public let referenceCache: CacheSize?
  }

  /// Perplexity of `model` and, against `reference`, its divergence. Both see the same windows; a tail shorter than a window is left out,
  /// unless it is all there is.
  ///
  /// - Parameter progress: called with the number of blocks done and their total.
  /// - Throws: `TokenOutOfRange` for an id outside the vocabulary, `EvaluationError` for fewer than two tokens and for a model without logits,
  ///   `NonFiniteActivation` where one of the models overflows, and what reading the models throws.
  public func evaluate(
    _ model: Model, against reference: Model? = nil, on tokens: [Int32], progress: @Sendable (Int, Int) -> Void = { _, _ in }
  ) throws -> Result {
    try evaluate(model, against: reference, on: tokens, journal: nil, progress: progress)
  }

  /// The same, going on from what an earlier evaluation has kept.
  ///
  /// - Throws: also `DamagedJournal`.
  package func evaluate(
    _ model: Model, against reference: Model?, on tokens: [Int32], journal: EvaluationJournal?, progress: @Sendable (Int, Int) -> Void
  ) throws -> Result {
    guard tokens.count >= 2 else { throw EvaluationError.tooShort(tokens: tokens.count) }
    guard model.description.hasLogits else { throw EvaluationError.noLogits }
    if let reference {
      guard reference.description.hasLogits else { throw EvaluationError.kindsDiffer }
      try check(model, reference)
    }
    let windows = windows(of: tokens)
    var caches = [CacheSize](repeating: CacheSize(), count: reference == nil ? 1 : 2)
    let models = [model] + (reference.map { [$0] } ?? [])
    let batches = batches(windows, of: models)
    let total = batches.count * models.reduce(0) { $0 + $1.places.count }
    var done = 0
    var scores: [WindowScore] = []
    for (number, batch) in batches.enumerated() {
      let turn = EvaluationJournal.Place(number: number, windows: scores.count..<scores.count + batch.count)
      if let kept = try journal?.finished(turn) {
        scores += kept.scores
        caches = kept.caches
        done += models.reduce(0) { $0 + $1.places.count }
        progress(done, total)
        continue
      }
      var states: [[Matrix]] = []
      for (index, model) in models.enumerated() {
        states.append(
          try hidden(of: model, batch, &caches[index], journal: journal.map { ($0, turn, index) }) {
            done += 1
            progress(done, total)
          })
      }
      let scored = try score(models, batch, states)
      try journal?.keep(scored, caches, of: turn)
      scores += scored
      done += models.count
      progress(done, total)
    }
    try Model.checkFiles()
    let perplexity = Perplexity(
      negativeLogLikelihood: scores.mean(\.negativeLogLikelihood), standardError: scores.standardError(\.negativeLogLikelihood),
      tokens: scores.reduce(0) { $0 + $1.tokens }, windows: scores.count)
    let tokensRun = windows.reduce(0) { $0 + $1.tokens.count }
    guard reference != nil else {
      return Result(
        perplexity: perplexity, reference: nil, divergence: nil, tokensRun: tokensRun, cache: caches[0], referenceCache: nil)
    }
    let referencePerplexity = Perplexity(
      negativeLogLikelihood: scores.mean(\.referenceNegativeLogLikelihood),
      standardError: scores.standardError(\.referenceNegativeLogLikelihood), tokens: perplexity.tokens, windows: scores.count)
    let divergence = Divergence(
      mean: scores.mean(\.divergence), standardError: scores.standardError(\.divergence),
      topAgreement: scores.mean { Double($0.agreements) })
    return Result(
      perplexity: perplexity, reference: referencePerplexity, divergence: divergence, tokensRun: tokensRun, cache: caches[0],
      referenceCache: caches[1])
  }

  /// Bytes that an evaluation takes.
  public struct MemoryNeed: Sendable, Equatable {
    /// What it cannot do without: a block as floats with what a window leaves in it; the heads as floats and logits; the states of as many
    /// windows as there are threads.
    public var least: Int
    /// Of the hidden states of all windows, in and out of a block.
    public var states: Int

    public init(least: Int = 0, states: Int = 0) { (self.least, self.states) = (least, states) }
  }

  /// - Parameters:
  ///   - models: one, or one and what it is compared with.
  ///   - retrieval: sequences of the retrieval probe, whose states are held all at once.
  public func memoryNeed(of models: [ModelDescription], tokens: Int, retrieval: Int = 0) -> MemoryNeed {
    let (length, width) = (min(window, tokens), Parallel.width)
    let hidden = models.map(\.hiddenSize).max() ?? 0
    let blocks = models.flatMap(\.blocks)
    let block = blocks.map { $0.linearShapes.values.reduce(0) { $0 + $1.rows * $1.columns } }.max() ?? 0
    let widest = blocks.flatMap { $0.linearShapes.values.map(\.rows) }.max() ?? 0
    let vocabulary = models.map(\.vocabularySize).max() ?? 0
    let heads = 4 * models.count * vocabulary * hidden + width * 128 * vocabulary * 4 * models.count
    let perWindow = models.count * length * hidden * 4
    let one = 2 * width * perWindow + 2 * retrieval * length * hidden * 4
    let inside = 4 * block + width * length * (2 * widest + 4 * hidden) * 4
    let states = windows(count: tokens) * (perWindow + length * hidden * 4)
    return MemoryNeed(least: max(inside, heads) + one, states: states)
  }

  /// What is to be known of figures on so many tokens: that many of them are in no window, or that windows are longer than what the model was
  /// made for.
  public func remarks(on model: ModelDescription, tokens: Int) -> [String] {
    var remarks: [String] = []
    let (step, length) = (stride ?? window, min(window, tokens))
    let read = (windows(count: tokens) - 1) * min(step, length) + length
    if tokens > 0, 20 * (tokens - read) >= tokens {
      remarks.append(
        "evaluation: \(tokens - read) of \(tokens) tokens are in no window of \(window)\(step > window ? ", \(step) apart," : "") and are not scored; "
          + "shorter windows would read more of them")
    }
    if let limit = model.maximumPositions, length > limit {
      remarks.append(
        "evaluation: windows of \(length) tokens are longer than the model's \(limit) positions, and figures beyond these say little")
    }
    return remarks
  }

  /// Floating-point operations of one model's way through all windows.
  public func operations(of model: ModelDescription, tokens: Int) -> Double {
    let read = Double(windows(count: tokens) * min(window, tokens))
    let weights = model.blocks.reduce(model.vocabularySize * model.hiddenSize) { sum, block in
      block.linearShapes.values.reduce(sum) { $0 + $1.rows * $1.columns }
    }
    // Queries with keys, weights with values: half of all pairs each.
    let attended = model.blocks.compactMap(\.heads).reduce(0) { sum, heads in sum + heads.queries * heads.size }
    let attention = attended * min(window, tokens)
    return 2 * read * Double(weights + attention)
  }

  private func windows(count tokens: Int) -> Int { tokens < window ? 1 : (tokens - window) / (stride ?? window) + 1 }

  /// The same, with turns that are no larger than a limit has room for.
  public func within(_ limit: Int, of models: [ModelDescription], tokens: Int, retrieval: Int = 0) -> Evaluator {
    var evaluator = self
    // States of one model are twice there while a block makes new ones of them.
    let room = limit - memoryNeed(of: models, tokens: tokens, retrieval: retrieval).least
    evaluator.memory = max(0, room / (models.count + 1) * models.count)
    return evaluator
  }

  struct Window: Sendable {
    var tokens: [Int32]
    /// Index of the first token whose prediction counts.
    var firstScored: Int
  }

  /// - Throws: `EvaluationError.vocabulariesDiffer`.
  func check(_ model: Model, _ reference: Model) throws(EvaluationError) {
    guard reference.description.vocabularySize == model.description.vocabularySize else {
      throw .vocabulariesDiffer(model.description.vocabularySize, reference.description.vocabularySize)
    }
  }

  func windows(of tokens: [Int32]) -> [Window] {
    guard tokens.count >= window else { return [Window(tokens: tokens, firstScored: 1)] }
    let step = stride ?? window
    return Swift.stride(from: 0, through: tokens.count - window, by: step).map { start in
      Window(tokens: Array(tokens[start..<start + window]), firstScored: start == 0 ? 1 : max(1, window - step))
    }
  }

  /// Windows in turns, so that the hidden states of a turn fit into memory.
  func batches(_ windows: [Window], of models: [Model]) -> [[Window]] {
    let longest = windows.map(\.tokens.count).max() ?? 0
    let perWindow = models.reduce(0) { $0 + $1.description.hiddenSize } * longest * 4
    let fitting = max(Parallel.width, memory / max(1, perWindow))
    // Windows that are stacked stay together.
    let turn = fitting < Self.stacked ? fitting : fitting / Self.stacked * Self.stacked
    return Swift.stride(from: 0, to: windows.count, by: turn).map { Array(windows[$0..<min($0 + turn, windows.count)]) }
  }

  /// Windows that go through a block's caches together.
  private static let stacked = 8

  /// The hidden states before the head.
  ///
  /// - Parameters:
  ///   - cache: is added what the caches of all blocks held in the end.
  ///   - journal: where an earlier evaluation may have kept states of the same turn and model.
  /// - Throws: `EvaluationError.noCache` for a chunk where there is no cache to feed it through, and what reading the model throws.
  func hidden(
    of model: Model, _ windows: [Window], _ cache: inout CacheSize,
    journal: (file: EvaluationJournal, turn: EvaluationJournal.Place, model: Int)? = nil,
    blockDone: () -> Void
  ) throws -> [Matrix] {
    if chunk != nil, let reason = model.description.cacheObstacle { throw EvaluationError.noCache(reason) }
    let walk = ModelWalk(model, carrying: windows.map(\.tokens))
    var (states, behind) = ([Matrix](), 0)
    if let journal, let kept = try journal.file.states(of: journal.turn, model: journal.model) {
      (states, behind, cache) = (kept.states, kept.behind, kept.cache)
    } else {
      states = try walk.embedded()
      cache.tokens += windows.reduce(0) { $0 + $1.tokens.count }
    }
    for _ in 0...behind { blockDone() }
    let expand = { (block: Block) in run(through: block, positions: walk.positions) }
    try walk.visit(from: behind, progress: { _, _ in blockDone() }, expanding: expand) { index, run in
      let (outputs, size) = try run(states)
      states = outputs
      cache.bytes += size.bytes
      if let chunk = size.chunk { cache.chunk = chunk }
      if let (file, turn, number) = journal {
        try file.keep(states, cache, behind: index + 1, of: model.description.blocks.count, turn: turn, model: number)
      }
    }
    return states
  }

  /// How windows go through a block: from what enters it to what leaves it, and what its caches hold in the end.
  private func run(through stored: Block, positions: Int) -> ([Matrix]) throws -> (states: [Matrix], cache: CacheSize) {
    var size = CacheSize()
    if let chunk = chunk ?? (stored.cachePolicy == nil ? nil : Self.usualChunk) {
      let block = CachedBlock(stored, positions: positions)
      size.chunk = chunk
      return { [size] inputs in
        let outputs = try Parallel.map((inputs.count + Self.stacked - 1) / Self.stacked) { group in
          try block.run(Array(inputs[group * Self.stacked..<min((group + 1) * Self.stacked, inputs.count)]), piece: chunk)
        }
        var size = size
        size.bytes = outputs.reduce(0) { $0 + $1.bytes }
        return (outputs.flatMap(\.states), size)
      }
    }
    let block = PreparedBlock(stored, positions: positions)
    return { [size] inputs in
      let outputs = try Parallel.map(inputs.count) { try block.forward(inputs[$0]) }
      var size = size
      size.bytes = inputs.reduce(0) { $0 + CachedBlock.byteCount(of: stored, tokens: $1.rows) }
      return (outputs, size)
    }
  }

  private func score(_ models: [Model], _ windows: [Window], _ states: [[Matrix]]) throws -> [WindowScore] {
    let heads = try models.map(LogitHead.init)
    try Task.checkCancellation()
    return try Parallel.map(windows.count) { index in
      let window = windows[index]
      var score = WindowScore()
      // Positions in tiles, so that the logits of a large vocabulary stay small.
      for first in Swift.stride(from: window.firstScored - 1, to: window.tokens.count - 1, by: 128) {
        let positions = first..<min(first + 128, window.tokens.count - 1)
        let logits = try heads.indices.map { try heads[$0].logits(states[$0][index], positions) }
        for position in positions { score.add(logits, row: position - first, target: Int(window.tokens[position + 1])) }
      }
      return score
    }
  }
}

extension WindowScore {
  /// - Parameter logits: of the model, and of the reference if there is one.
  fileprivate mutating func add(_ logits: [Matrix], row: Int, target: Int) {
    tokens += 1
    let width = logits[0].columns
    logits[0].withUnsafeElements { own in
      let own = own + row * width
      let sum = Kernel.logSumExp(own, count: width)
      negativeLogLikelihood += sum - Double(own[target])
      guard logits.count > 1 else { return }
      logits[1].withUnsafeElements { other in
        let other = other + row * width
        let otherSum = Kernel.logSumExp(other, count: width)
        referenceNegativeLogLikelihood += otherSum - Double(other[target])
        divergence += Kernel.klDivergence(other, logSumExp: otherSum, own, logSumExp: sum, count: width)
        let row = UnsafeBufferPointer(start: own, count: width)
        let otherRow = UnsafeBufferPointer(start: other, count: width)
        if row.firstIndex(of: row.max()!) == otherRow.firstIndex(of: otherRow.max()!) { agreements += 1 }
      }
    }
  }
}

public enum EvaluationError: Error, Equatable, Sendable, CustomStringConvertible {
  case tooShort(tokens: Int)
  case vocabulariesDiffer(Int, Int)
  case hiddenSizesDiffer(Int, Int)
  /// One model has logits, the other has not.
  case kindsDiffer
  /// What needs logits was asked of an encoder.
  case noLogits
  /// What needs a key-value cache was asked of a model that keeps none.
  case noCache(String)

  public var description: String {
    switch self {
    case .tooShort(let tokens): "\(tokens) tokens cannot be scored; at least two are needed"
    case .vocabulariesDiffer(let own, let other):
      "the model has \(own) tokens and the reference \(other); the two are compared on the same tokens"
    case .hiddenSizesDiffer(let own, let other):
      "the model's hidden states have \(own) numbers and the reference's \(other); their cosine is defined for one size only"
    case .kindsDiffer: "one of the models is an encoder without logits; encoders are compared with encoders, by their hidden states"
    case .noLogits:
      "the model is an encoder: it makes hidden states and no logits, so nothing can be predicted, generated or scored by perplexity; "
        + "hidden states are compared with those of a reference"
    case .noCache(let reason): reason
    }
  }
}

extension Double {
  var exponential: Double { exp(self) }
}
