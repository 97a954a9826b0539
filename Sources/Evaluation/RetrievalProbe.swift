public import Models
internal import Tensors

/// Whether a model still uses what it has read far back: a string stands somewhere in running text and once more at the end.
///
/// Every sequence is run twice, the second time with another string in the first place. What is scored is the same tokens at the same
/// positions behind the same text; only what there was to remember differs. The gain says something about models, too, that are too small
/// to answer questions about a passkey; for those that can, random strings are one. The first token of the string at the end is not
/// scored: it is the cue.
public struct RetrievalProbe: Sendable, Equatable {
  public enum Strings: String, Sendable, Codable, CaseIterable {
    /// Tokens of the text in no order: nothing but memory predicts them.
    case random
    /// Stretches of the text.
    case text
  }

  public var strings: Strings
  /// How many sequences, each of one window.
  public var sequences: Int
  /// Tokens of a string; `nil` for an eighth of the window, at most 32.
  public var length: Int?
  public var seed: UInt64

  public init(_ strings: Strings = .random, sequences: Int = 64, length: Int? = nil, seed: UInt64 = 0) {
    self.strings = strings
    self.sequences = sequences
    self.length = length
    self.seed = seed
  }

  public struct Result: Sendable, Equatable, Codable {
    /// Mean log-probability of the string's tokens where it stood before minus that where it did not, in nats.
    public let gain: Double
    /// Its standard error, by sequences; `nil` for a single one.
    public let standardError: Double?
    /// Share of these tokens that were the most likely, where the string stood before and where it did not.
    public let recalled: Double
    public let guessed: Double
    /// Tokens scored, each twice.
    public let tokens: Int
  }

  /// A sequence with the string in both places, and with another one in the first.
  package struct Sequence: Sendable, Equatable {
    package let tokens: [Int32]
    package let control: [Int32]
    /// Tokens of text before the first string.
    package let lead: Int
  }

  package func length(in window: Int) -> Int { length ?? min(32, window / 8) }

  package func sequences(of window: Int, from tokens: [Int32]) throws(EvaluationError) -> [Sequence] {
    let length = length(in: window)
    guard tokens.count >= window, length > 1, window >= 2 * length + 2 else { throw .tooShort(tokens: tokens.count) }
    let words = Set(tokens).sorted()
    return (0..<sequences).map { index in
      var random = KeyedRandomness(seed: seed, key: "retrieval", "\(index)")
      func stretch(_ count: Int) -> ArraySlice<Int32> { tokens[Int.random(in: 0...tokens.count - count, using: &random)...].prefix(count) }
      func string() -> [Int32] {
        switch strings {
        case .random: (0..<length).map { _ in words[Int.random(in: words.indices, using: &random)] }
        case .text: Array(stretch(length))
        }
      }
      let text = stretch(window - 2 * length)
      let lead = Int.random(in: 1..<text.count, using: &random)
      let (string, other) = (string(), string())
      func sequence(_ first: [Int32]) -> [Int32] { text.prefix(lead) + first + text.dropFirst(lead) + string }
      return Sequence(tokens: sequence(string), control: sequence(other), lead: lead)
    }
  }
}

extension Evaluator {
  /// The probe on sequences of one window each; text and strings are taken from the given tokens.
  ///
  /// - Throws: `EvaluationError.tooShort` for fewer tokens than a window, or a window in which the string does not fit twice; `noLogits` for an
  ///   encoder.
  public func retrieval(of model: Model, _ probe: RetrievalProbe, on tokens: [Int32]) throws -> RetrievalProbe.Result {
    guard model.description.hasLogits else { throw EvaluationError.noLogits }
    let windows = try probe.sequences(of: window, from: tokens).flatMap { pair in
      [pair.tokens, pair.control].map { Window(tokens: $0, firstScored: 1) }
    }
    let length = probe.length(in: window)
    var size = CacheSize()
    let states = try hidden(of: model, windows, &size) {}
    let head = try LogitHead(model)
    let scores = try Parallel.map(windows.count) { try head.score(states[$0], windows[$0].tokens, window - length + 1..<window) }
    let pairs = Swift.stride(from: 0, to: scores.count, by: 2).map { (with: scores[$0], without: scores[$0 + 1]) }
    let gains: [Double] = pairs.map { ($0.with.sum - $0.without.sum) / Double(length - 1) }
    let mean = gains.reduce(0, +) / Double(max(1, gains.count))
    let squares: Double = gains.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    let variance = squares / Double(max(1, gains.count - 1))
    let scored = gains.count * (length - 1)
    return RetrievalProbe.Result(
      gain: mean, standardError: gains.count > 1 ? (variance / Double(gains.count)).squareRoot() : nil,
      recalled: Double(pairs.reduce(0) { $0 + $1.with.hits }) / Double(max(1, scored)),
      guessed: Double(pairs.reduce(0) { $0 + $1.without.hits }) / Double(max(1, scored)), tokens: scored)
  }
}

extension LogitHead {
  /// Log-probabilities of the tokens at some places, summed, and how many of these were the most likely.
  fileprivate func score(_ hidden: Matrix, _ tokens: [Int32], _ places: Range<Int>) throws -> (sum: Double, hits: Int) {
    let logits = try logits(hidden, places.lowerBound - 1..<places.upperBound - 1)
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
