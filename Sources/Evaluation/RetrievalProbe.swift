public import Models
internal import Tensors

/// Whether a model still finds what it has read far back: a string of random tokens stands somewhere in running text and once more at the end.
///
/// The first time nothing predicts its tokens; the second time their order in the cache does. What counts is how much more likely they are
/// then, which says something about models, too, that are too small to answer questions about a passkey. The first token of the string is
/// not scored: it is the cue.
public struct RetrievalProbe: Sendable, Equatable {
  /// How many sequences, each of one window.
  public var sequences: Int
  /// Tokens of a string; `nil` for an eighth of the window, at most 32.
  public var length: Int?
  public var seed: UInt64

  public init(sequences: Int = 64, length: Int? = nil, seed: UInt64 = 0) {
    self.sequences = sequences
    self.length = length
    self.seed = seed
  }

  public struct Result: Sendable, Equatable, Codable {
    /// Mean log-probability of the string's tokens the second time minus that the first time, in nats.
    public let gain: Double
    /// Its standard error, by sequences.
    public let standardError: Double
    /// Share of these tokens that were the most likely the second time.
    public let recalled: Double
    /// Tokens scored, each twice.
    public let tokens: Int
  }
}

extension RetrievalProbe {
  /// The sequences, and how many tokens of text stand before the string in each.
  package func sequences(of window: Int, from tokens: [Int32]) throws(EvaluationError) -> [(lead: Int, length: Int, tokens: [Int32])] {
    let length = length ?? min(32, window / 8)
    guard tokens.count >= window, length > 1, window >= 2 * length + 2 else { throw .tooShort(tokens: tokens.count) }
    let words = Set(tokens).sorted()
    return (0..<sequences).map { index in
      var random = KeyedRandomness(seed: seed, key: "retrieval", "\(index)")
      let text = tokens[Int.random(in: 0...tokens.count - window, using: &random)...].prefix(window - 2 * length)
      let string = (0..<length).map { _ in words[Int.random(in: words.indices, using: &random)] }
      let lead = Int.random(in: 1...text.count / 2, using: &random)
      return (lead, length, text.prefix(lead) + string + text.dropFirst(lead) + string)
    }
  }
}

extension Evaluator {
  /// The probe on sequences of one window each; filler and strings are made of the given tokens.
  ///
  /// - Throws: `EvaluationError.tooShort` for fewer tokens than a window, or a window in which the string does not fit twice.
  public func retrieval(of model: Model, _ probe: RetrievalProbe, on tokens: [Int32]) throws -> RetrievalProbe.Result {
    let sequences = try probe.sequences(of: window, from: tokens)
    let windows = sequences.map { Window(tokens: $0.tokens, firstScored: 1) }
    let length = sequences.first?.length ?? 0
    var size = CacheSize()
    let states = try hidden(of: model, windows, &size) {}
    let head = try LogitHead(model)
    let scores = Parallel.map(windows.count) { index in
      let first = head.score(states[index], windows[index].tokens, sequences[index].lead + 1..<sequences[index].lead + length)
      let second = head.score(states[index], windows[index].tokens, window - length + 1..<window)
      return (gain: (second.sum - first.sum) / Double(length - 1), hits: second.hits)
    }
    let mean = scores.reduce(0) { $0 + $1.gain } / Double(max(1, scores.count))
    let variance = scores.reduce(0) { $0 + ($1.gain - mean) * ($1.gain - mean) } / Double(max(1, scores.count - 1))
    let scored = scores.count * (length - 1)
    return RetrievalProbe.Result(
      gain: mean, standardError: (variance / Double(max(1, scores.count))).squareRoot(),
      recalled: Double(scores.reduce(0) { $0 + $1.hits }) / Double(max(1, scored)), tokens: scored)
  }
}

extension LogitHead {
  /// Log-probabilities of the tokens at some places, summed, and how many of these were the most likely.
  fileprivate func score(_ hidden: Matrix, _ tokens: [Int32], _ places: Range<Int>) -> (sum: Double, hits: Int) {
    let logits = logits(hidden, places.lowerBound - 1..<places.upperBound - 1)
    let width = logits.columns
    return logits.withUnsafeElements { logits in
      places.reduce(into: (sum: 0.0, hits: 0)) { result, place in
        let row = UnsafeBufferPointer(start: logits + (place - places.lowerBound) * width, count: width)
        let value = row[Int(tokens[place])]
        result.sum += Double(value) - Kernel.logSumExp(row.baseAddress!, count: width)
        if row.allSatisfy({ $0 <= value }) { result.hits += 1 }
      }
    }
  }
}
