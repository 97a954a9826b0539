internal import KVCache
public import Models
internal import Passes
internal import Tensors

/// Reads and continues one token sequence through the key-value caches of all blocks, which obey their policies.
///
/// All blocks are expanded at once: unlike an evaluation, this needs memory for the whole model in single precision.
public struct Generator: Sendable {
  private let embedding: PreparedEmbedding
  private let blocks: [CachedBlock]
  private var caches: [[BlockCache]]
  private let head: LogitHead
  /// The most tokens that can be read.
  public let positions: Int
  /// Tokens read.
  public private(set) var tokens = 0

  /// - Throws: `EvaluationError` for a model without logits or without a cache, and what reading the model throws.
  public init(_ model: Model, positions: Int) throws {
    guard model.description.hasLogits else { throw EvaluationError.noLogits }
    if let reason = model.description.cacheObstacle { throw EvaluationError.noCache(reason) }
    let walk = ModelWalk(model)
    embedding = PreparedEmbedding(try walk.embedding())
    blocks = try walk.expanded { CachedBlock($0, positions: positions) }
    caches = blocks.map { [$0.makeCache()] }
    head = try LogitHead(model)
    self.positions = positions
  }

  /// Bytes that a generator of so many positions needs: the whole model in single precision, and at every position what is kept of it.
  public static func memoryNeed(of model: Model, positions: Int) -> Int {
    let description = model.description
    let ends = description.vocabularySize * description.hiddenSize * 4
    return description.blocks.reduce(ends) { bytes, block in
      let weights = block.linearShapes.values.reduce(0) { $0 + $1.rows * $1.columns }
      let kept = block.mixers.reduce(0) { $0 + $1.stateSize(tokens: positions) }
      // Cosines and sines in two tables.
      let tables = 2 * positions * (block.heads?.size ?? 0)
      return bytes + 4 * (weights + kept + tables)
    }
  }

  /// Bytes the caches hold, see `BlockCache.byteCount`.
  public var cacheBytes: Int { caches.reduce(0) { $0 + $1[0].byteCount } }

  /// Reads the next tokens of the sequence in one piece.
  ///
  /// - Returns: the logits of what follows the last of them.
  /// - Precondition: at least one token, and no more than `positions` in all.
  /// - Throws: `TokenOutOfRange`, `SequenceTooLong` where positions are learned, and `NonFiniteActivation`.
  public mutating func read(_ next: [Int32]) throws -> [Float] {
    precondition(!next.isEmpty && tokens + next.count <= positions, "the sequence is longer than was prepared for")
    var states = try embedding(next, at: tokens)
    for index in blocks.indices { states = try blocks[index].forward(states, caches: &caches[index]) }
    tokens += next.count
    return try head.logits(states, next.count - 1..<next.count).elements
  }
}

/// How the next token is chosen.
public struct Sampling: Sendable, Equatable {
  /// Divides the logits; 0 takes the most likely token, and so does what is so small that a quotient is no number any more.
  public var temperature: Float
  /// Only the most likely tokens that together have at least this probability are drawn from (Holtzman et al. 2020).
  public var topP: Float

  public init(temperature: Float = 0, topP: Float = 1) {
    self.temperature = temperature
    self.topP = topP
  }

  public func token(from logits: [Float], using random: inout some RandomNumberGenerator) -> Int32 {
    let largest = logits.reduce(0) { max($0, abs($1)) }
    guard temperature > 0, (max(1, largest) / temperature).isFinite else {
      return Int32(logits.indices.max { (logits[$0], -$0) < (logits[$1], -$1) } ?? 0)
    }
    var probabilities = logits
    probabilities.withUnsafeMutableBufferPointer { Kernel.softmax($0.baseAddress!, count: $0.count, scale: 1 / temperature) }
    let order = topP < 1 ? probabilities.indices.sorted { probabilities[$0] > probabilities[$1] } : Array(probabilities.indices)
    var (sum, kept) = (Float(0), 0)
    while kept < order.count, kept == 0 || topP >= 1 || sum < topP {
      sum += probabilities[order[kept]]
      kept += 1
    }
    var left = Float.random(in: 0..<max(sum, .leastNormalMagnitude), using: &random)
    for index in order[..<kept] {
      left -= probabilities[index]
      if left < 0 { return Int32(index) }
    }
    return Int32(order[kept - 1])
  }
}
