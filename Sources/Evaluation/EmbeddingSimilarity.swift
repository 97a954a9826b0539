public import Models
package import Tensors

/// How near a model's hidden states are to another's, for models whose hidden states are what is used of them.
///
/// A sequence is one window of tokens, as given: nothing is put around it. Its embedding is the mean of the last hidden states over all its
/// positions (Reimers and Gurevych 2019, section 3), and what is compared is the cosine, which lengths of embeddings do not enter.
public struct EmbeddingSimilarity: Sendable, Equatable, Codable {
  /// Of one number per sequence.
  public struct Summary: Sendable, Equatable, Codable {
    public let mean: Double
    public let minimum: Double
    /// Between two sequences where it falls between them, by linear interpolation.
    public let fifthPercentile: Double

    /// - Precondition: at least one value.
    public init(_ values: [Double]) {
      precondition(!values.isEmpty, "nothing to summarise")
      let sorted = values.sorted()
      mean = values.reduce(0, +) / Double(values.count)
      minimum = sorted[0]
      let place = 0.05 * Double(sorted.count - 1)
      let (low, share) = (Int(place), place - Double(Int(place)))
      fifthPercentile = sorted[low] + share * (sorted[min(low + 1, sorted.count - 1)] - sorted[low])
    }
  }

  /// Cosines of the sequences' embeddings.
  public let pooled: Summary
  /// Means over a sequence of the cosines of its tokens' last hidden states.
  public let tokenwise: Summary
  public let sequences: Int
  /// Tokens compared.
  public let tokens: Int
}

extension Evaluator {
  /// The hidden states that `model` makes against those that `reference` makes of the same windows; which windows, as for `evaluate`.
  ///
  /// - Parameter progress: called with the number of blocks done and their total.
  /// - Throws: `EvaluationError` for models with logits, models that do not fit each other, a chunk, and fewer than two tokens;
  ///   `TokenOutOfRange`, `SequenceTooLong`, and what reading the models throws.
  public func similarity(
    of model: Model, to reference: Model, on tokens: [Int32], progress: @Sendable (Int, Int) -> Void = { _, _ in }
  ) throws -> EmbeddingSimilarity {
    guard tokens.count >= 2 else { throw EvaluationError.tooShort(tokens: tokens.count) }
    guard !model.description.hasLogits, !reference.description.hasLogits else { throw EvaluationError.kindsDiffer }
    try check(model, reference)
    guard model.description.hiddenSize == reference.description.hiddenSize else {
      throw EvaluationError.hiddenSizesDiffer(model.description.hiddenSize, reference.description.hiddenSize)
    }
    let windows = windows(of: tokens)
    let batches = batches(windows, of: [model, reference])
    let total = batches.count * (model.places.count + reference.places.count)
    var (done, size) = (0, CacheSize())
    var (pooled, tokenwise): ([Double], [Double]) = ([], [])
    for batch in batches {
      func states(_ model: Model) throws -> [Matrix] {
        try hidden(of: model, batch, &size) {
          done += 1
          progress(done, total)
        }
      }
      let (own, other) = (try states(model), try states(reference))
      let cosines = Parallel.map(batch.count) { index in
        let each = own[index].cosines(with: other[index])
        return (pooled: own[index].meanRow.cosines(with: other[index].meanRow)[0], token: each.reduce(0, +) / Double(each.count))
      }
      pooled += cosines.map(\.pooled)
      tokenwise += cosines.map(\.token)
    }
    try Model.checkFiles()
    return EmbeddingSimilarity(
      pooled: .init(pooled), tokenwise: .init(tokenwise), sequences: windows.count,
      tokens: windows.reduce(0) { $0 + $1.tokens.count })
  }
}

extension Matrix {
  /// The cosine of every row with the same row of another; of two rows of zeros 1, of one 0.
  package func cosines(with other: Matrix) -> [Double] {
    precondition(rows == other.rows && columns == other.columns, "rows of other sizes")
    return (0..<rows).map { row in
      var (dot, own, theirs) = (0.0, 0.0, 0.0)
      for index in row * columns..<(row + 1) * columns {
        let (a, b) = (Double(elements[index]), Double(other.elements[index]))
        dot += a * b
        own += a * a
        theirs += b * b
      }
      guard own > 0, theirs > 0 else { return own == theirs ? 1 : 0 }
      return dot / (own * theirs).squareRoot()
    }
  }

  /// The mean over all rows, [1 × columns].
  fileprivate var meanRow: Matrix {
    var sums = [Double](repeating: 0, count: columns)
    for row in 0..<rows { for column in 0..<columns { sums[column] += Double(elements[row * columns + column]) } }
    return Matrix(rows: 1, columns: columns, elements: sums.map { Float($0 / Double(rows)) })
  }
}
