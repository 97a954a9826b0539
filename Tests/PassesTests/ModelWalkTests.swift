import CompressKit
import Synchronization
import TestSupport
import Testing

@Suite struct ModelWalkTests {
  private let sequences = TinyModel.sequences(3, length: 12)

  /// Keeps which parts of a model were read, in this order.
  private final class Log: Sendable {
    private let entries = Mutex([Block.Kind]())
    var kinds: [Block.Kind] { entries.withLock { $0 } }
    func add(_ kind: Block.Kind) { entries.withLock { $0.append(kind) } }
  }

  private struct Broken: Error, Equatable {}

  /// A model of four blocks that says what is read of it.
  private static func model(tied: Bool = false) throws -> (model: Model, read: Log) {
    let config = TinyModel.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":4")
      .replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":\(tied)")
    let (model, log) = (try TinyModel.model(config), Log())
    return (
      Model(description: model.description) { kind in
        log.add(kind)
        return try model.block(kind)
      }, log
    )
  }

  private func places(_ indices: Range<Int>) -> [Block.Kind] { indices.map { .decoder(index: $0) } }

  @Test func blocksAreVisitedInOrderFromAnyOn() throws {
    for first in 0...4 {
      let (model, read) = try Self.model()
      var (visited, told): ([Int], [String]) = ([], [])
      try ModelWalk(model).visit(from: first, progress: { told.append("\($0)/\($1)") }) { index, block in
        #expect(block.kind == .decoder(index: index) && read.kinds.last == block.kind)
        visited.append(index)
      }
      #expect(visited == Array(first..<4))
      #expect(read.kinds == places(first..<4))
      #expect(told == (first..<4).map { "\($0 + 1)/4" })
    }
  }

  @Test func whatIsNotWantedIsNotRead() throws {
    let (model, read) = try Self.model()
    var visited: [Int] = []
    try ModelWalk(model).visit(where: { $0 % 2 == 1 }, expanding: \.name) { index, name in
      #expect(name == "model.layers.\(index)")
      visited.append(index)
    }
    #expect(visited == [1, 3])
    #expect(read.kinds == [.decoder(index: 1), .decoder(index: 3)])
  }

  @Test func cancellationIsAskedForBeforeEveryBlock() async throws {
    let (model, read) = try Self.model()
    let visited = Mutex(0)
    let walk = Task {
      try ModelWalk(model).visit { index, _ in
        visited.withLock { $0 += 1 }
        if index == 1 { withUnsafeCurrentTask { $0?.cancel() } }
      }
    }
    await #expect(throws: CancellationError.self) { try await walk.value }
    #expect(visited.withLock { $0 } == 2)
    #expect(read.kinds == places(0..<2))
    let parts = Task {
      try await ModelWalk(model).parts { index, _ in if index == 0 { withUnsafeCurrentTask { $0?.cancel() } } }
    }
    await #expect(throws: CancellationError.self) { try await parts.value }
    #expect(read.kinds.dropFirst(2) == [.embedding])
  }

  @Test func statesAreCarriedAsPreparedBlocksRun() throws {
    let (model, read) = try Self.model()
    let walk = ModelWalk(model, carrying: sequences)
    #expect(walk.positions == 12)
    let table = PreparedEmbedding(try model.block(.embedding))
    let start = try sequences.map { try table($0) }
    #expect(try walk.embedded() == start)
    var expected = [start]
    for index in 0..<4 {
      let block = try model.block(.decoder(index: index))
      let prepared = PreparedBlock(block, positions: 12)
      expected.append(try expected[index].map { try prepared.forward($0) })
      #expect(try walk.carry(expected[index], through: block) == expected[index + 1])
    }
    let before = read.kinds.count
    // Two sets side by side, every block read once.
    let (whole, reversed) = (expected[1], Array(expected[1].reversed()))
    #expect(try walk.carry([whole, reversed], from: 1) == [expected[4], expected[4].reversed()])
    #expect(read.kinds.dropFirst(before).elementsEqual(places(1..<4)))
    #expect(try walk.carry([expected[4]], from: 4) == [expected[4]])
    var states = start
    try walk.visit(expanding: { PreparedBlock($0, positions: walk.positions) }) { _, block in
      states = try walk.carry(states, through: block)
    }
    #expect(states == expected[4])
  }

  @Test func allBlocksAreExpandedAtOnce() throws {
    let (model, _) = try Self.model()
    #expect(try ModelWalk(model).expanded { $0.name } == (0..<4).map { "model.layers.\($0)" })
  }

  @Test func theHeadsMatrixMayBeTheEmbeddings() throws {
    for tied in [false, true] {
      let (head, owner) = try ModelWalk(try Self.model(tied: tied).model).head()
      #expect(head.kind == .head && head.norms.count == 1)
      #expect(owner.kind == (tied ? .embedding : .head))
    }
  }

  @Test func partsGoFromEmbeddingToHead() async throws {
    let (model, read) = try Self.model()
    var visited: [Block.Kind] = []
    try await ModelWalk(model).parts { index, part in
      #expect(index == visited.count)
      visited.append(part.kind)
    }
    #expect(visited == model.kinds && read.kinds == model.kinds)
  }

  @Test func aSweepReadsOneAheadAndWritesOneBehind() async throws {
    let (model, read) = try Self.model()
    let written = Mutex([Float?]())
    let kinds = model.kinds
    try await ModelWalk(model).sweep(
      kinds,
      into: { block in written.withLock { $0.append(block.linears.values.first?.bias?.first) } },
      { index, part in
        #expect(part.kind == kinds[index])
        #expect((index + 1...index + 2).contains(read.kinds.count))
        #expect((max(0, index - 1)...index).contains(written.withLock { $0.count }))
        var made = part
        for name in part.linears.keys { made[name].bias = [Float(index)] }
        return made
      })
    #expect(read.kinds == kinds)
    #expect(written.withLock { $0 } == kinds.indices.map { Float($0) })
    try await ModelWalk(model).sweep([], into: { _ in Issue.record("nothing was made") }) { $1 }
  }

  @Test func aSweepEndsWithTheFirstFailure() async throws {
    let (model, read) = try Self.model()
    await #expect(throws: Broken()) {
      try await ModelWalk(model).sweep(model.kinds, into: { if $0.kind == .decoder(index: 0) { throw Broken() } }) { $1 }
    }
    #expect(read.kinds.count <= 4)
    await #expect(throws: Broken()) {
      try await ModelWalk(model).sweep(model.kinds, into: { _ in }) { index, part in
        if index == 2 { throw Broken() }
        return part
      }
    }
  }
}
