package import Models
package import Tensors

/// The way through a model, block by block: the one place where blocks are read one after the other.
///
/// Before a block is read, cancellation is asked for; once a block is done, the pages of its stored weights are given back and progress is told.
/// A walk therefore costs the memory of one block, however large the model is, and whoever walks says only what is to be done on the way.
package struct ModelWalk: Sendable {
  /// Told after every block: how many are behind, of how many.
  package typealias Progress = (_ done: Int, _ total: Int) -> Void

  package let model: Model
  /// What is carried through the model.
  package let sequences: [[Int32]]
  /// Tokens of the longest of them.
  package let positions: Int

  /// - Parameter sequences: what is to be carried; none for a walk that only looks at weights, or carries states of another making.
  package init(_ model: Model, carrying sequences: [[Int32]] = []) {
    self.model = model
    self.sequences = sequences
    positions = sequences.map(\.count).max() ?? 0
  }

  // MARK: The ends

  package func embedding() throws -> Embedding { try model.embedding() }

  /// The head and its matrix: the embedding's table where both are tied.
  package func head() throws -> (head: Head, matrix: Linear) {
    let head = try model.head()
    return (head, try head.linears.values.first ?? embedding().table)
  }

  /// The sequences as they enter the first block, [tokens × hidden size] each.
  ///
  /// - Throws: `TokenOutOfRange`, `SequenceTooLong` where positions are learned, and `NonFiniteActivation`.
  package func embedded() throws -> [Matrix] {
    let table = PreparedEmbedding(try embedding())
    return try Parallel.map(sequences.count) { try table(sequences[$0]) }
  }

  // MARK: Blocks

  /// Visits the decoder blocks in their order.
  ///
  /// - Parameters:
  ///   - first: the first one that is visited.
  ///   - isWanted: by a block's number, whether it is visited; what is not is not read.
  package func visit(
    from first: Int = 0, where isWanted: (Int) -> Bool = { _ in true }, progress: Progress = { _, _ in },
    _ body: (_ index: Int, _ block: Block) throws -> Void
  ) throws {
    let count = model.description.blocks.count
    for index in first..<max(first, count) where isWanted(index) {
      try Task.checkCancellation()
      let block = try model.block(index)
      try body(index, block)
      block.releasePages()
      progress(index + 1, count)
    }
  }

  /// The same for those who need nothing of a block but what they make of it: its pages are given back before the visit.
  package func visit<Expanded>(
    from first: Int = 0, where isWanted: (Int) -> Bool = { _ in true }, progress: Progress = { _, _ in },
    expanding expand: (Block) throws -> Expanded, _ body: (_ index: Int, _ expanded: Expanded) throws -> Void
  ) throws {
    try visit(from: first, where: isWanted, progress: progress) { index, block in
      let expanded = try expand(block)
      block.releasePages()
      try body(index, expanded)
    }
  }

  /// What is made of every block, for those who need all of them at once.
  package func expanded<Expanded>(by expand: (Block) throws -> Expanded) throws -> [Expanded] {
    var all: [Expanded] = []
    try visit(expanding: expand) { all.append($1) }
    return all
  }

  // MARK: States

  /// Hidden states of all sequences through one block, whoever has made it.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  package func carry(_ states: [Matrix], through block: Block) throws -> [Matrix] {
    try carry(states, through: PreparedBlock(block, positions: positions))
  }

  package func carry(_ states: [Matrix], through block: PreparedBlock) throws -> [Matrix] {
    try Parallel.map(states.count) { try block.forward(states[$0]) }
  }

  /// Several sets of hidden states through all blocks from one on; every block is read and expanded once.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  package func carry(_ sets: [[Matrix]], from first: Int = 0) throws -> [[Matrix]] {
    var sets = sets
    try visit(from: first, expanding: { PreparedBlock($0, positions: positions) }) { _, block in
      sets = try sets.map { try carry($0, through: block) }
    }
    return sets
  }

  // MARK: Parts

  /// Visits embedding, blocks and head, one after the other.
  package func parts(_ body: (_ index: Int, _ part: any ModelPart) async throws -> Void) async throws {
    for (index, place) in model.places.enumerated() {
      try Task.checkCancellation()
      let part = try model.part(place)
      try await body(index, part)
      part.releasePages()
    }
  }

  /// Sweeps over parts of the model: while one is worked on, the next is read and what became of the one before is written. Three are alive at
  /// most.
  ///
  /// - Parameters:
  ///   - places: where those are, in this order.
  ///   - write: takes what `work` has made, one after the other.
  package func sweep(
    _ places: [PartPlace], into write: @escaping @Sendable (any ModelPart) async throws -> Void,
    _ work: (_ index: Int, _ part: any ModelPart) throws -> any ModelPart
  ) async throws {
    var next = try places.first.map { try model.part($0) }
    var finished: (any ModelPart)?
    for index in places.indices {
      try Task.checkCancellation()
      guard let part = next else { break }
      let (previous, following) = (finished, index + 1 < places.count ? places[index + 1] : nil)
      async let upcoming = following.map { try model.part($0) }
      async let written: Void = Self.hand(previous, to: write)
      finished = try work(index, part)
      part.releasePages()
      try await written
      next = try await upcoming
    }
    try await Self.hand(finished, to: write)
  }

  private static func hand(_ part: (any ModelPart)?, to write: @Sendable (any ModelPart) async throws -> Void) async throws {
    if let part { try await write(part) }
  }
}
