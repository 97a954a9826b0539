import CompressKit
import Foundation
import TestSupport
import Testing

@testable import KVCache

struct EvictionTests {
  private func eviction(
    _ method: CacheEviction.Method, budget: Int = 12, sinks: Int = 0, recent: Int = 0, positions: CacheEviction.Positions = .original
  ) -> CacheEviction { CacheEviction(method: method, budget: budget, sinks: sinks, recent: recent, positions: positions) }

  @Test func streamingKeepsTheFirstAndTheNewest() throws {
    let sample = try Sample(tokens: 40)
    let policy = CachePolicy(eviction: eviction(.streaming, sinks: 3, recent: 9))
    for cut in [Array(repeating: 1, count: 40), [5, 20], []] {
      var cache = sample.cache(policy)
      _ = sample.run(&cache, pieces: cut)
      #expect(cache.positions(of: 0) == [0, 1, 2] + Array(31..<40) && cache.positions(of: 1) == cache.positions(of: 0))
      #expect(cache.held == 12 && cache.tokens == 40)
      #expect(cache.byteCount == 2 * 2 * 12 * 8 * 2)
      let keys = sample.head(1, of: sample.rotated.keys)
      for (row, position) in cache.positions(of: 1).enumerated() {
        for channel in 0..<8 { #expect(Double(cache.keys(of: 1)[row, channel]) == keys[position][channel]) }
      }
    }
  }

  @Test(arguments: CacheEviction.Positions.allCases)
  func attentionIsToWhatIsHeld(positions: CacheEviction.Positions) throws {
    let sample = try Sample(tokens: 40)
    var cache = sample.cache(CachePolicy(eviction: eviction(.streaming, sinks: 3, recent: 9, positions: positions)))
    let output = sample.run(&cache, pieces: Array(repeating: 1, count: 40))
    for token in [0, 11, 12, 13, 39] {
      // Before the token's own eviction: what was held, and itself.
      let seen = token < 13 ? Array(0...token) : [0, 1, 2] + Array(token - 9...token)
      // Rotated by position, or by place with the query at its own.
      var (queries, keys) = (sample.queries.rows(token..<token + 1), Matrix(stacking: seen.map { sample.keys.rows($0..<$0 + 1) }))
      let places = positions == .original ? seen : Array(seen.indices)
      sample.block.rotate(&queries, heads: 4, positions: [places.last!])
      sample.block.rotate(&keys, heads: 2, positions: places)
      for head in 0..<4 {
        let weights = Sample.probabilities(sample.head(head, of: queries)[0], sample.head(head / 2, of: keys))
        let values = sample.head(head / 2, of: sample.values)
        for (channel, expected) in Sample.mix(weights, seen.map { values[$0] }).enumerated() {
          #expect(abs(Double(output[token, head * 8 + channel]) - expected) < 1e-5, "\(token) \(head) \(channel)")
        }
      }
    }
  }

  /// Runs 30 tokens at once, so that one eviction sees them all, and compares what is left with the scores' definition.
  private func check(
    _ eviction: CacheEviction, policy: CachePolicy = CachePolicy(), scores: (Sample, _ keyValueHead: Int) -> [Double]
  ) throws {
    let sample = try Sample(tokens: 30)
    var policy = policy
    policy.eviction = eviction
    var cache = sample.cache(policy)
    _ = sample.run(&cache)
    for head in 0..<2 {
      let scores = scores(sample, head)
      let candidates = eviction.sinks..<30 - eviction.recent
      let best = candidates.sorted { scores[$0] > scores[$1] }.prefix(eviction.budget - eviction.sinks - eviction.recent)
      let kept = Array(0..<eviction.sinks) + best.sorted() + Array(30 - eviction.recent..<30)
      #expect(cache.positions(of: head) == kept, "head \(head)")
    }
  }

  /// What query `token` of a query head pays to each key it sees.
  private func attention(_ sample: Sample, _ head: Int, _ token: Int) -> [Double] {
    let (queries, keys) = sample.rotated
    return Sample.probabilities(sample.head(head, of: queries)[token], Array(sample.head(head / 2, of: keys)[0...token]))
  }

  @Test func h2oKeepsWhatReceivedMost() throws {
    try check(eviction(.h2o, recent: 6)) { sample, head in
      var received = [Double](repeating: 0, count: 30)
      for query in [2 * head, 2 * head + 1] {
        for token in 0..<30 { for (key, weight) in attention(sample, query, token).enumerated() { received[key] += weight } }
      }
      return received.enumerated().map { $1 / Double(30 - $0) }
    }
  }

  @Test func tovaKeepsWhatTheLastQuerySees() throws {
    try check(eviction(.tova, recent: 1)) { sample, _ in
      (0..<4).map { attention(sample, $0, 29) }.reduce(Array(repeating: 0, count: 30)) { zip($0, $1).map(+) }
    }
  }

  @Test func snapKVKeepsWhatTheWindowSees() throws {
    try check(eviction(.snapkv, recent: 5)) { sample, head in
      var mean = [Double](repeating: 0, count: 30)
      for query in [2 * head, 2 * head + 1] {
        for token in 25..<30 { for (key, weight) in attention(sample, query, token).enumerated() { mean[key] += weight } }
      }
      return (0..<30).map { key in (max(0, key - 2)...min(29, key + 2)).reduce(0) { $0 + mean[$1] } }
    }
  }

  @Test(arguments: [CachePolicy(), .byToken(8, residual: 30, isRotated: true)])
  func expectedAttentionFollowsItsFormula(policy: CachePolicy) throws {
    try check(eviction(.expectedAttention, sinks: 2), policy: policy) { sample, head in
      let keys = sample.head(head, of: sample.rotated.keys)
      let values = sample.head(head, of: sample.values)
      var total = [Double](repeating: 0, count: 30)
      for query in [2 * head, 2 * head + 1] {
        let states = Array(sample.head(query, of: sample.queries)[4...])
        let mean: [Double] = (0..<8).map { channel in states.reduce(0) { $0 + $1[channel] } / 26 }
        var covariance = Array(repeating: [Double](repeating: 0, count: 8), count: 8)
        for state in states { for a in 0..<8 { for b in 0..<8 { covariance[a][b] += (state[a] - mean[a]) * (state[b] - mean[b]) / 26 } } }
        // The mean rotation in the half-split layout: pairs (i, i + 4) at frequency 10000^(-i/4).
        var rotation = Array(repeating: [Double](repeating: 0, count: 8), count: 8)
        for i in 0..<4 {
          let frequency = pow(10_000, -Double(i) / 4)
          let angles = (31...542).map { Double($0) * frequency }
          let (c, s) = (angles.reduce(0) { $0 + cos($1) } / 512, angles.reduce(0) { $0 + sin($1) } / 512)
          (rotation[i][i], rotation[i][i + 4], rotation[i + 4][i], rotation[i + 4][i + 4]) = (c, -s, s, c)
        }
        func times(_ a: [[Double]], _ b: [[Double]]) -> [[Double]] {
          a.map { row in (0..<b[0].count).map { column in (0..<8).reduce(0.0) { $0 + row[$1] * b[$1][column] } } }
        }
        let center = times(rotation, mean.map { [$0] }).map { $0[0] }
        let transposed: [[Double]] = (0..<8).map { a in (0..<8).map { rotation[$0][a] } }
        let spread = times(times(rotation, covariance), transposed)
        var logits: [Double] = []
        for key in keys {
          var (linear, square) = (0.0, 0.0)
          for a in 0..<8 {
            linear += key[a] * center[a]
            for b in 0..<8 { square += key[a] * spread[a][b] * key[b] }
          }
          logits.append(linear / 8.0.squareRoot() + square / 16)
        }
        let sum = logits.reduce(0) { $0 + exp($1) }
        for key in 0..<30 { total[key] += exp(logits[key]) / sum }
      }
      return (0..<30).map { key in total[key] * values[key].reduce(0) { $0 + $1 * $1 }.squareRoot() }
    }
  }

  @Test(arguments: CacheEviction.Method.allCases)
  func budgetsHoldHoweverASequenceIsCut(method: CacheEviction.Method) throws {
    let sample = try Sample(tokens: 60)
    for policy in [CachePolicy(), .byToken(4, residual: 5), .fp8] {
      var policy = policy
      policy.eviction = eviction(method, sinks: 2, recent: method == .streaming ? 10 : 4)
      for cut in [Array(repeating: 1, count: 60), [30, 1, 1, 20], []] {
        var cache = sample.cache(policy)
        let output = sample.run(&cache, pieces: cut)
        #expect(output.elements.allSatisfy { $0.isFinite })
        for head in 0..<2 {
          let positions = cache.positions(of: head)
          #expect(positions.count == 12 && positions == positions.sorted() && Set(positions).count == 12)
          #expect(positions.prefix(2) == [0, 1] && positions.suffix(4) == [56, 57, 58, 59])
        }
      }
    }
  }

  @Test func survivorsKeepTheirCodes() throws {
    let sample = try Sample(tokens: 40)
    var policy = CachePolicy.byToken(4, group: 4, residual: 5)
    var whole = sample.cache(policy)
    _ = sample.run(&whole)
    policy.eviction = eviction(.h2o, budget: 20, recent: 8)
    var evicted = sample.cache(policy)
    _ = sample.run(&evicted)
    for head in 0..<2 {
      for (row, position) in evicted.positions(of: head).enumerated() {
        #expect(evicted.keys(of: head).rows(row..<row + 1) == whole.keys(of: head).rows(position..<position + 1))
        #expect(evicted.values(of: head).rows(row..<row + 1) == whole.values(of: head).rows(position..<position + 1))
      }
    }
    // Fifteen coded tokens with two runs each in two heads, keys and values; five as they are.
    #expect(evicted.byteCount == 2 * 2 * (15 * 2 * (2 + 4) + 5 * 8 * 2))
  }
}
