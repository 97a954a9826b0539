import CompressKit

/// What `eval` says of an encoder.
struct SimilarityFigures: Sendable {
  let cosine: EmbeddingSimilarity
  let seconds: Double
  let peakMemory: Int?

  /// Both models read every token.
  private var tokensPerSecond: Double { Double(cosine.tokens) / max(seconds, 1e-9) }

  /// Figures that only models with logits have are null.
  var json: JSON {
    .object([
      .init("perplexity", .null), .init("negative_log_likelihood", .null), .init("kl_divergence", .null), .init("top1_agreement", .null),
      .init("tokens", .integer(cosine.tokens)), .init("windows", .integer(cosine.sequences)),
      .init("pooled_cosine", cosine.pooled.json), .init("token_cosine", cosine.tokenwise.json),
      .init("tokens_per_second", .double(tokensPerSecond)), .init("peak_memory_bytes", peakMemory.map { .integer($0) } ?? .null),
    ])
  }

  var text: String {
    var lines = [
      "cosine to the reference, by windows",
      "  embeddings    \(cosine.pooled.mean.rounded(toPlaces: 6))  (\(cosine.pooled.tail))",
      "  tokens        \(cosine.tokenwise.mean.rounded(toPlaces: 6))  (\(cosine.tokenwise.tail))",
      "tokens compared \(cosine.tokens) in \(cosine.sequences) windows",
      "speed           \(tokensPerSecond.rounded(toPlaces: 0)) tokens/s",
    ]
    if let peakMemory { lines.append("peak memory     \(ByteCount.text(peakMemory))") }
    return lines.joined(separator: "\n")
  }
}

extension EmbeddingSimilarity.Summary {
  fileprivate var json: JSON {
    .object([
      .init("mean", .double(mean)), .init("minimum", .double(minimum)), .init("percentile_5", .double(fifthPercentile)),
    ])
  }

  /// The lower end in words.
  var tail: String { "5 % below \(fifthPercentile.rounded(toPlaces: 5)), lowest \(minimum.rounded(toPlaces: 5))" }
}
