public import Models
public import Tensors

/// A decoder block that reads sequences piece by piece through their caches.
public struct CachedBlock: Sendable {
  private let prepared: PreparedBlock
  private let empty: KeyValueCache

  /// Expands the block's weights.
  ///
  /// - Parameter positions: the longest sequence that will be run.
  /// - Precondition: `block` is a decoder block, and its cache policy fits its attention.
  public init(_ block: Block, positions: Int) {
    guard let description = block.description?.attention else { preconditionFailure("only decoder blocks have a cache") }
    let policy = block.cachePolicy ?? CachePolicy()
    if let misfit = policy.misfit(in: description) { preconditionFailure("\(block.name): \(misfit)") }
    let horizon = policy.eviction?.method == .expectedAttention ? ExpectedAttention.horizon : 0
    prepared = PreparedBlock(block, longest: positions, horizon: horizon)
    empty = KeyValueCache(
      description, policy: policy, fixed: block.cache, rotation: policy.isRotated ? HeadRotation(size: description.headSize) : nil)
  }

  /// Bytes that a cache without a policy holds of so many tokens: 16 bits a number, or 8 under fixed scales.
  public static func byteCount(of block: Block, tokens: Int) -> Int {
    guard let attention = block.description?.attention, attention.cacheObstacle == nil else { return 0 }
    return 2 * attention.keyValueHeads * attention.headSize * tokens * (block.cache == nil ? HeadStore.plainBytes : 1)
  }

  /// A cache that holds nothing yet.
  public func makeCache() -> KeyValueCache { empty }

  /// Runs the next pieces of several sequences, all of the same length.
  ///
  /// - Parameters:
  ///   - hidden: the pieces one after the other, [caches · tokens × hidden size].
  ///   - caches: one for each sequence.
  /// - Returns: [caches · tokens × hidden size].
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func forward(_ hidden: Matrix, caches: inout [KeyValueCache]) throws(NonFiniteActivation) -> Matrix {
    precondition(!caches.isEmpty && hidden.rows % caches.count == 0, "pieces of one length are needed, one for each cache")
    let tokens = hidden.rows / caches.count
    var state = try prepared.start(hidden)
    while state.input != nil {
      try prepared.advance(&state) { made throws(NonFiniteActivation) in
        let (queries, keys, values) = try prepared.finiteStates(made)
        return Matrix(
          stacking: caches.indices.map { index in
            let rows = index * tokens..<(index + 1) * tokens
            return caches[index].attend(
              queries: queries.rows(rows), keys: keys.rows(rows), values: values.rows(rows), by: prepared)
          })
      }
    }
    return state.residual
  }

  /// Runs whole sequences of one length, cut into pieces, through fresh caches.
  ///
  /// - Parameters:
  ///   - hidden: [tokens × hidden size] each.
  ///   - piece: tokens of a piece; the last one may be shorter.
  /// - Returns: the block's outputs, and the bytes all caches hold in the end.
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func run(_ hidden: [Matrix], piece: Int) throws(NonFiniteActivation) -> (states: [Matrix], bytes: Int) {
    let length = hidden.first?.rows ?? 0
    var caches = Array(repeating: empty, count: hidden.count)
    var outputs = Array(repeating: [Matrix](), count: hidden.count)
    for first in stride(from: 0, to: length, by: piece) {
      let tokens = first..<min(first + piece, length)
      let output = try forward(Matrix(stacking: hidden.map { $0.rows(tokens) }), caches: &caches)
      for index in hidden.indices { outputs[index].append(output.rows(index * tokens.count..<(index + 1) * tokens.count)) }
    }
    return (outputs.map { Matrix(stacking: $0) }, caches.reduce(0) { $0 + $1.byteCount })
  }
}
