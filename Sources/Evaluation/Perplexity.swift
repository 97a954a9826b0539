/// exp of the mean negative log-likelihood over every predicted token.
public struct Perplexity: Sendable, Equatable, Codable {
  /// Mean negative log-likelihood in nats.
  public let negativeLogLikelihood: Double
  /// Its standard error; `nil` for a single window. Tokens of a window are correlated, so windows are the units.
  public let standardError: Double?
  /// Tokens predicted.
  public let tokens: Int
  public let windows: Int

  public var value: Double { negativeLogLikelihood.exponential }

  /// The 95 % confidence interval of `value`; `nil` for a single window, which tells nothing about its kind.
  public var interval: ClosedRange<Double>? {
    standardError.map { (negativeLogLikelihood - 1.96 * $0).exponential...(negativeLogLikelihood + 1.96 * $0).exponential }
  }
}

/// How far a model's predictions are from another's, on the same tokens.
public struct Divergence: Sendable, Equatable, Codable {
  /// Mean of KL(reference ‖ model) over the predicted tokens, in nats.
  public let mean: Double
  /// Its standard error, by windows; `nil` for a single one.
  public let standardError: Double?
  /// Share of tokens where both models find the same next token most likely.
  public let topAgreement: Double
}

/// The figures of one window, from which all others are sums.
struct WindowScore: Sendable, Codable {
  var tokens = 0
  var negativeLogLikelihood = 0.0
  var referenceNegativeLogLikelihood = 0.0
  var divergence = 0.0
  var agreements = 0
}

extension Array<WindowScore> {
  func mean(_ sum: (WindowScore) -> Double) -> Double { reduce(0) { $0 + sum($1) } / Double(Swift.max(1, reduce(0) { $0 + $1.tokens })) }

  /// Standard error of the windows' means; `nil` for a single window, which tells nothing about its kind.
  func standardError(_ sum: (WindowScore) -> Double) -> Double? {
    guard count > 1 else { return nil }
    let means = map { sum($0) / Double(Swift.max(1, $0.tokens)) }
    let mean = means.reduce(0, +) / Double(count)
    let variance = means.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(count - 1)
    return (variance / Double(count)).squareRoot()
  }
}
