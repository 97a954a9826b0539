public import Models
public import Tensors

/// A decoder block that reads sequences piece by piece through their caches.
public struct CachedBlock: Sendable {
  private let prepared: PreparedBlock
  private let empty: BlockCache

  /// Expands the block's weights.
  ///
  /// - Parameter positions: the longest sequence that will be run.
  /// - Precondition: the block's cache policy fits its attention.
  public init(_ block: Block, positions: Int) {
    let policy = block.cachePolicy ?? CachePolicy()
    let horizon = policy.eviction?.method == .expectedAttention ? ExpectedAttention.horizon : 0
    prepared = PreparedBlock(block, longest: positions, horizon: horizon)
    let memories = zip(block.description.mixers, prepared.mixers).map { mixer, prepared -> BlockCache.Memory in
      if let recurrent = prepared as? any RecurrentMixer { return .state(recurrent.makeState()) }
      guard let attention = mixer as? AttentionDescription else {
        preconditionFailure("\(block.name): \(type(of: mixer).kind) runs on whole sequences only")
      }
      if let misfit = policy.misfit(in: attention) { preconditionFailure("\(block.name): \(misfit)") }
      return .keysAndValues(
        KeyValueCache(
          attention, policy: policy, fixed: block.cache, rotation: policy.isRotated ? HeadRotation(size: attention.headSize) : nil,
          sinks: (prepared as? PreparedAttention)?.sinks))
    }
    empty = BlockCache(mixers: memories)
  }

  /// Bytes that a cache without a policy holds of so many tokens: 16 bits a number of keys and values, or 8 under fixed scales, and 32 of
  /// other states.
  public static func byteCount(of block: Block, tokens: Int) -> Int {
    let mixers = block.description.mixers.filter { $0.cacheObstacle == nil }
    return mixers.reduce(0) { bytes, mixer in
      let width = mixer is AttentionDescription ? block.cache == nil ? HeadStore.plainBytes : 1 : 4
      return bytes + width * mixer.stateSize(tokens: tokens)
    }
  }

  /// A cache that holds nothing yet.
  public func makeCache() -> BlockCache { empty }

  /// Runs the next pieces of several sequences, all of the same length.
  ///
  /// - Parameters:
  ///   - hidden: the pieces one after the other, [caches · tokens × hidden size].
  ///   - caches: one for each sequence.
  /// - Returns: [caches · tokens × hidden size].
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func forward(_ hidden: Matrix, caches: inout [BlockCache]) throws(NonFiniteActivation) -> Matrix {
    precondition(!caches.isEmpty && hidden.rows % caches.count == 0, "pieces of one length are needed, one for each cache")
    let tokens = hidden.rows / caches.count
    var state = try prepared.start(hidden)
    while state.input != nil {
      try prepared.advance(&state) { place, made throws(NonFiniteActivation) in
        try mix(made, by: place, tokens: tokens, &caches)
      }
    }
    return state.residual
  }

  /// Lets one of the mixers read the next pieces of all sequences.
  ///
  /// - Parameter made: what the mixer reads, [caches · tokens × features] each.
  private func mix(
    _ made: [Matrix], by place: Int, tokens: Int, _ caches: inout [BlockCache]
  ) throws(NonFiniteActivation) -> Matrix {
    func piece(_ index: Int) -> Range<Int> { index * tokens..<(index + 1) * tokens }
    if let attention = prepared.mixers[place] as? PreparedAttention {
      let states = try attention.finiteStates(made)
      var context = Matrix(
        stacking: caches.indices.map { index in
          caches[index].attend(states, rows: piece(index), at: place, by: attention)
        })
      attention.gate(&context, by: made)
      return context
    }
    guard let recurrent = prepared.mixers[place] as? any RecurrentMixer else { preconditionFailure("the mixer keeps no state") }
    return Matrix(
      stacking: caches.indices.map { index in
        caches[index].run(made.map { $0.rows(piece(index)) }, at: place, by: recurrent)
      })
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
