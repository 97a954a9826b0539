public import Models
internal import Passes
internal import KVCache
internal import Tensors

/// Draws token sequences from a model: what it would say itself, as calibration data (Liu et al., "LLM-QAT", 2023, section 3.1).
///
/// Sequences are drawn side by side through the key-value caches of all blocks, each from random numbers of its own, so that they are the
/// same whatever their number. All blocks are expanded at once: this needs memory for the whole model in single precision.
public struct SequenceSampler: Sendable {
  /// Sequences drawn side by side.
  private static let width = 32

  private let embedding: PreparedEmbedding
  private let blocks: [CachedBlock]
  private let head: LogitHead
  /// Tokens of a sequence.
  public let length: Int

  /// - Throws: what reading the model throws.
  public init(_ model: Model, length: Int) throws {
    let walk = ModelWalk(model)
    embedding = PreparedEmbedding(try walk.embedding())
    blocks = try walk.expanded { CachedBlock($0, positions: length) }
    head = try LogitHead(model)
    self.length = length
  }

  /// - Parameters:
  ///   - beginning: the tokens that every sequence begins with; without any, the first is drawn evenly from the vocabulary.
  ///   - ends: tokens after which the sequence begins anew.
  /// - Returns: `count` sequences of `length` tokens.
  /// - Throws: `TokenOutOfRange` for a beginning that the model has no row for, `SequenceTooLong` where positions are learned, and
  ///   `CancellationError`.
  public func sequences(
    _ count: Int, beginning: [Int32], ends: Set<Int32>, sampling: Sampling, seed: UInt64
  ) throws -> [[Int32]] {
    var result: [[Int32]] = []
    for first in stride(from: 0, to: count, by: Self.width) {
      let numbers = first..<min(first + Self.width, count)
      result += try draw(numbers.map { KeyedRandomness(seed: seed, key: "self \($0)") }, beginning, ends, sampling)
    }
    return result
  }

  private func draw(
    _ generators: [KeyedRandomness], _ beginning: [Int32], _ ends: Set<Int32>, _ sampling: Sampling
  ) throws -> [[Int32]] {
    var generators = generators
    var sequences = generators.indices.map { index in
      beginning.isEmpty ? [Int32.random(in: 0..<Int32(head.vocabularySize), using: &generators[index])] : beginning
    }
    var caches = blocks.map { block in generators.map { _ in block.makeCache() } }
    for position in 0..<length - 1 {
      try Task.checkCancellation()
      var states = Matrix(stacking: try sequences.map { try embedding([$0[position]], at: position) })
      for index in blocks.indices { states = try blocks[index].forward(states, caches: &caches[index]) }
      let open = sequences.indices.filter { sequences[$0].count == position + 1 }
      guard !open.isEmpty else { continue }
      let logits = try head.logits(states, 0..<states.rows)
      for index in open {
        let row = Array(logits.elements[index * logits.columns..<(index + 1) * logits.columns])
        let next = sampling.token(from: row, using: &generators[index])
        sequences[index].append(next)
        if ends.contains(next) { sequences[index] += beginning }
      }
    }
    return sequences.map { Array($0.prefix(length)) }
  }
}
