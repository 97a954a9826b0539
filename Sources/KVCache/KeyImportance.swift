import Models
import Tensors

/// What the scores of an eviction policy are made of: everything that is held of one key-value head.
struct HeldHead {
  /// [tokens × size], rotated by their positions; `values` alike.
  let keys: Matrix
  let values: Matrix
  let positions: [Int]
}

/// How much each held token is expected to matter: the part in which eviction policies differ.
protocol KeyImportance: Sendable {
  /// Sees the queries of a piece, [tokens × heads · size], before and after the rotary embedding.
  mutating func observe(unrotated: Matrix, rotated: Matrix, position: Int)
  /// Sees what one key-value head's attention was.
  mutating func observe(_ probabilities: HeadCache.Probabilities, of head: Int)
  /// Scores of the held tokens of every key-value head.
  ///
  /// - Parameter rotate: the rotary embedding of rows at given positions.
  mutating func scores(of heads: [() -> HeldHead], counts: [Int], rotate: (inout Matrix, [Int]) -> Void) -> [[Float]]
  /// Follows an eviction.
  mutating func keep(_ tokens: [Int], of head: Int)
}

extension KeyImportance {
  mutating func observe(unrotated: Matrix, rotated: Matrix, position: Int) {}
  mutating func observe(_ probabilities: HeadCache.Probabilities, of head: Int) {}
  mutating func keep(_ tokens: [Int], of head: Int) {}
}

/// Attention received, averaged over the queries that could see the key: H2O without its bias to old tokens (observed attention).
struct ReceivedAttention: KeyImportance {
  private var received: [[Float]]
  private var seen: [[Float]]

  init(heads: Int) {
    received = Array(repeating: [], count: heads)
    seen = received
  }

  mutating func observe(_ probabilities: HeadCache.Probabilities, of head: Int) {
    let missing = probabilities.held + probabilities.queries.upperBound - received[head].count
    received[head] += Array(repeating: 0, count: max(0, missing))
    seen[head] += Array(repeating: 0, count: max(0, missing))
    for row in 0..<probabilities.group * probabilities.queries.count {
      let line = probabilities.rows + row * probabilities.stride
      let visible = probabilities.held + probabilities.queries.lowerBound + row % probabilities.queries.count + 1
      for token in 0..<visible {
        received[head][token] += line[token]
        seen[head][token] += 1
      }
    }
  }

  func scores(of heads: [() -> HeldHead], counts: [Int], rotate: (inout Matrix, [Int]) -> Void) -> [[Float]] {
    zip(received, seen).map { received, seen in zip(received, seen).map { $0 / max($1, 1) } }
  }

  mutating func keep(_ tokens: [Int], of head: Int) {
    received[head] = tokens.map { received[head][$0] }
    seen[head] = tokens.map { seen[head][$0] }
  }
}

/// The last query's attention, averaged over all heads of the block: TOVA.
struct LastAttention: KeyImportance {
  private var last: [Float] = []
  private let queryHeads: Int

  init(queryHeads: Int) { self.queryHeads = queryHeads }

  mutating func observe(_ probabilities: HeadCache.Probabilities, of head: Int) {
    guard probabilities.isLast else { return }
    let visible = probabilities.held + probabilities.queries.upperBound
    if head == 0 { last = Array(repeating: 0, count: visible) }
    for member in 1...probabilities.group {
      let line = probabilities.rows + (member * probabilities.queries.count - 1) * probabilities.stride
      for token in 0..<visible { last[token] += line[token] / Float(queryHeads) }
    }
  }

  func scores(of heads: [() -> HeldHead], counts: [Int], rotate: (inout Matrix, [Int]) -> Void) -> [[Float]] {
    Array(repeating: last, count: heads.count)
  }
}
