import CompressKit
import Foundation
import TestSupport

@testable import KVCache

/// What attention is given for a sequence, and what a cache makes of it.
struct Sample {
  let block: PreparedAttention
  let description: AttentionDescription
  let queries: Matrix
  let keys: Matrix
  let values: Matrix

  /// Four query heads over two key-value heads of eight numbers.
  init(tokens: Int, window: Int? = nil) throws {
    let config = TinyModel.config.replacing(
      "\"llama\"", with: window == nil ? "\"llama\"" : "\"mistral\",\"sliding_window\":\(window ?? 0)")
    let stored = try TinyModel.model(config).block(0)
    description = stored.description.attention!
    block = PreparedBlock(stored, longest: tokens, horizon: 600).attention!
    queries = .random(rows: tokens, columns: description.heads * description.headSize, key: "queries", scale: 1.5)
    keys = .random(rows: tokens, columns: description.keyValueHeads * description.headSize, key: "keys", scale: 1.5)
    values = .random(rows: tokens, columns: description.keyValueHeads * description.headSize, key: "values")
  }

  func cache(_ policy: CachePolicy, fixed: CacheQuantization? = nil) -> KeyValueCache {
    KeyValueCache(
      description, policy: policy, fixed: fixed, rotation: policy.isRotated ? HeadRotation(size: description.headSize) : nil)
  }

  /// Runs pieces of the given lengths; what is left over goes in at once.
  func run(_ cache: inout KeyValueCache, pieces: [Int] = []) -> Matrix {
    var outputs: [Matrix] = []
    var start = 0
    for length in pieces + [Int.max] where start < queries.rows {
      let rows = start..<min(queries.rows, length == .max ? length : start + length)
      outputs.append(cache.attend(queries: queries.rows(rows), keys: keys.rows(rows), values: values.rows(rows), by: block))
      start = rows.upperBound
    }
    return Matrix(stacking: outputs)
  }

  /// Rotated by position: queries and keys.
  var rotated: (queries: Matrix, keys: Matrix) {
    var (queries, keys) = (queries, keys)
    block.rotate(&queries, heads: description.heads, positions: Array(0..<queries.rows))
    block.rotate(&keys, heads: description.keyValueHeads, positions: Array(0..<keys.rows))
    return (queries, keys)
  }

  /// The part of one head.
  func head(_ index: Int, of states: Matrix) -> [[Double]] {
    let size = description.headSize
    return (0..<states.rows).map { row in (0..<size).map { Double(states[row, index * size + $0]) } }
  }

  var group: Int { description.heads / description.keyValueHeads }

  /// softmax(q·kᵀ/√d) by the definition: what a query pays to each of the keys.
  static func probabilities(_ query: [Double], _ keys: [[Double]]) -> [Double] {
    let scores = keys.map { key in zip(query, key).reduce(0) { $0 + $1.0 * $1.1 } / Double(query.count).squareRoot() }
    let top = scores.max() ?? 0
    let powers = scores.map { exp($0 - top) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
  }

  static func mix(_ probabilities: [Double], _ values: [[Double]]) -> [Double] {
    (0..<values[0].count).map { channel in zip(probabilities, values).reduce(0) { $0 + $1.0 * $1.1[channel] } }
  }
}

extension Matrix {
  func largestDifference(from other: Matrix) -> Float { zip(elements, other.elements).map { abs($0 - $1) }.max() ?? 0 }
}

extension CachePolicy {
  static func kivi(_ bits: Int, group: Int = 4, residual: Int = 6) -> CachePolicy {
    CachePolicy(
      key: CacheNumbers(bits: bits, axis: .channel, groupSize: group), value: CacheNumbers(bits: bits, axis: .token, groupSize: group),
      residual: residual)
  }

  static func byToken(_ bits: Int, group: Int = 8, residual: Int = 0, isRotated: Bool = false) -> CachePolicy {
    let numbers = CacheNumbers(bits: bits, axis: .token, groupSize: group)
    return CachePolicy(key: numbers, value: numbers, residual: residual, isRotated: isRotated)
  }

  static let fp8 = CachePolicy(
    key: CacheNumbers(grid: .float, bits: 8, axis: .token, groupSize: 8),
    value: CacheNumbers(grid: .float, bits: 8, axis: .token, groupSize: 8))
}
