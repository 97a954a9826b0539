import Models
public import Tensors

/// What one decoder block keeps of one sequence: keys and values as the block's policy stores them, added piece by piece or token by token.
///
/// Attention reads nothing but this cache. Every query sees each token in the form it would have had if tokens had come one by one, so
/// quantization costs the same however a sequence is cut; and what is held after n tokens depends on those tokens alone. Eviction happens
/// between pieces: during a piece the cache exceeds its budget by the piece's length.
///
/// What remains after an eviction keeps the position it had in the sequence, unless the policy says `consecutive`: then keys are held
/// without a position and rotated by their places in the cache, and queries by the place of their own token.
public struct KeyValueCache: Sendable {
  private let description: AttentionDescription
  private let policy: CachePolicy
  private let rotation: HeadRotation?
  private let softmax: AttentionSoftmax
  private var heads: [HeadCache]
  private var importance: (any KeyImportance)?
  /// Tokens seen.
  public private(set) var tokens = 0

  /// - Parameters:
  ///   - fixed: scales from the checkpoint; they take the place of the policy's numbers.
  ///   - sinks: by head; where the family has them.
  /// - Precondition: the policy has passed `CachePolicy.misfit(in:)`.
  init(_ description: AttentionDescription, policy: CachePolicy, fixed: CacheQuantization?, rotation: HeadRotation?, sinks: [Float]? = nil)
  {
    self.description = description
    self.policy = policy
    self.rotation = rotation
    softmax = description.softmax(sinks: sinks)
    let residual = fixed == nil ? policy.residual : 0
    heads = (0..<description.keyValueHeads).map { head in
      let keys = HeadStore(
        fixed.map { .fixed($0.key.ofHead(head)) } ?? policy.key.map { .measured($0) }, size: description.headSize, residual: residual)
      let values = HeadStore(
        fixed.map { .fixed($0.value.ofHead(head)) } ?? policy.value.map { .measured($0) }, size: description.headSize, residual: residual)
      return HeadCache(keys: keys, values: values)
    }
    switch policy.eviction?.method {
    case .h2o: importance = ReceivedAttention(heads: description.keyValueHeads)
    case .tova: importance = LastAttention(queryHeads: description.heads)
    case .snapkv: importance = ObservedWindow(description, softmax, window: max(1, policy.eviction?.recent ?? 1))
    case .expectedAttention: importance = ExpectedAttention(description)
    case .streaming, nil: importance = nil
    }
  }

  /// Tokens held per key-value head.
  public var held: Int { heads.first?.count ?? 0 }

  /// Bytes a runtime would hold: codes, scales, and 16 bits for every number that is not quantized. Sums that a policy keeps about its
  /// tokens are left out.
  public var byteCount: Int { heads.reduce(0) { $0 + $1.keys.byteCount + $1.values.byteCount } }

  /// The keys of a key-value head as attention sees them, [held tokens × head size]: rotated by their positions, or without any where
  /// places in the cache are positions.
  public func keys(of head: Int) -> Matrix { withoutRotation(heads[head].keys.dense()) }
  public func values(of head: Int) -> Matrix { withoutRotation(heads[head].values.dense()) }
  /// Where the held tokens of a key-value head stood in the sequence.
  public func positions(of head: Int) -> [Int] { heads[head].positions }

  private func withoutRotation(_ states: Matrix) -> Matrix { rotation?.undone(in: states) ?? states }

  private var isConsecutive: Bool { policy.eviction?.positions == .consecutive }

  /// Takes in the next piece of the sequence and lets it attend to what is held.
  ///
  /// - Parameters: [tokens × heads · size] each, without positions.
  /// - Returns: [tokens × heads · headSize].
  mutating func attend(queries: Matrix, keys: Matrix, values: Matrix, by block: PreparedAttention) -> Matrix {
    let (count, position, group) = (queries.rows, tokens, description.heads / description.keyValueHeads)
    let unrotated = queries
    var (queries, keys, values) = (queries, keys, values)
    var place: ((inout Matrix, Int) -> Void)?
    if isConsecutive {
      block.rotate(&queries, heads: description.heads, positions: Array(held..<held + count))
      place = { states, first in block.rotate(&states, heads: 1, positions: Array(first..<first + states.rows)) }
    } else {
      let positions = Array(position..<position + count)
      block.place(queries: &queries, positions: positions)
      block.place(keys: &keys, positions: positions)
    }
    importance?.observe(unrotated: unrotated, rotated: queries, position: position)
    if let rotation {
      (queries, keys, values) = (rotation.applied(to: queries), rotation.applied(to: keys), rotation.applied(to: values))
    }
    tokens += count
    // Taken out while it changes, so that it is not copied.
    var importance = importance
    self.importance = nil
    let out = Matrix(rows: count, columns: queries.columns) { out in
      for head in heads.indices {
        let piece = HeadCache.Piece(
          queries: queries, queryOffset: head * group * description.headSize, group: group, keys: keys, values: values,
          offset: head * description.headSize, position: position)
        heads[head].attend(
          piece, softmax, reach: description.reach, place: place,
          into: out.baseAddress!, observe: { importance?.observe($0, of: head) })
      }
    }
    self.importance = importance
    evict(by: block)
    return withoutRotation(out)
  }

  private mutating func evict(by block: PreparedAttention) {
    guard let eviction = policy.eviction, held > eviction.budget else { return }
    let now = self
    let held = heads.indices.map { head in
      { HeldHead(keys: now.keys(of: head), values: now.values(of: head), positions: now.positions(of: head)) }
    }
    let scores = importance?.scores(of: held, counts: heads.map(\.count)) { block.rotate(&$0, heads: 1, positions: $1) }
    for index in heads.indices {
      let kept = eviction.kept(positions: heads[index].positions, scores: scores?[index])
      heads[index].keep(kept)
      importance?.keep(kept, of: index)
    }
  }
}

extension KeyValueCache: Equatable {
  /// Whether the same tokens are held as the same codes and scales.
  public static func == (a: KeyValueCache, b: KeyValueCache) -> Bool {
    a.policy == b.policy && a.tokens == b.tokens && a.heads == b.heads
  }
}

extension CacheEviction {
  /// Which of the held tokens stay, in ascending order: sinks, the newest, and of the rest those with the highest scores; of equal ones the
  /// newer. Without scores the rest is made up of the newest, too.
  func kept(positions: [Int], scores: [Float]?) -> [Int] {
    let count = positions.count
    guard count > budget else { return Array(0..<count) }
    let first = positions.prefix(sinks).prefix { $0 < sinks }.count
    let newest = max(first, count - (scores == nil ? budget - first : recent))
    guard let scores else { return Array(0..<first) + Array(newest..<count) }
    let free = budget - first - (count - newest)
    let best = (first..<newest).sorted { (scores[$0], $0) > (scores[$1], $1) }.prefix(max(0, free)).sorted()
    return Array(0..<first) + best + Array(newest..<count)
  }
}
