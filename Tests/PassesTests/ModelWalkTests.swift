import CompressKit
import Synchronization
import TestSupport
import Testing

@Suite struct ModelWalkTests {
  private let sequences = TinyModel.sequences(3, length: 12)

  /// Keeps which parts of a model were read, in this order.
  private final class Log: Sendable {
    private let entries = Mutex([PartPlace]())
    var places: [PartPlace] { entries.withLock { $0 } }
    func add(_ place: PartPlace) { entries.withLock { $0.append(place) } }
  }

  private struct Broken: Error, Equatable {}

  /// A model of four blocks that says what is read of it.
  private static func model(tied: Bool = false) throws -> (model: Model, read: Log) {
    let config = TinyModel.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":4")
      .replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":\(tied)")
    let (model, log) = (try TinyModel.model(config), Log())
    return (
      Model(description: model.description) { place in
        log.add(place)
        return try model.part(place)
      }, log
    )
  }

  private func places(_ indices: Range<Int>) -> [PartPlace] { indices.map { .decoder(index: $0) } }

  @Test func blocksAreVisitedInOrderFromAnyOn() throws {
    for first in 0...4 {
      let (model, read) = try Self.model()
      var (visited, told): ([Int], [String]) = ([], [])
      try ModelWalk(model).visit(from: first, progress: { told.append("\($0)/\($1)") }) { index, block in
        #expect(block.place == .decoder(index: index) && read.places.last == block.place)
        visited.append(index)
      }
      #expect(visited == Array(first..<4))
      #expect(read.places == places(first..<4))
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
    #expect(read.places == [.decoder(index: 1), .decoder(index: 3)])
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
    #expect(read.places == places(0..<2))
    let parts = Task {
      try await ModelWalk(model).parts { index, _ in if index == 0 { withUnsafeCurrentTask { $0?.cancel() } } }
    }
    await #expect(throws: CancellationError.self) { try await parts.value }
    #expect(read.places.dropFirst(2) == [.embedding])
  }

  @Test func statesAreCarriedAsPreparedBlocksRun() throws {
    let (model, read) = try Self.model()
    let walk = ModelWalk(model, carrying: sequences)
    #expect(walk.positions == 12)
    let table = PreparedEmbedding(try model.embedding())
    let start = try sequences.map { try table($0) }
    #expect(try walk.embedded() == start)
    var expected = [start]
    for index in 0..<4 {
      let block = try model.block(index)
      let prepared = PreparedBlock(block, positions: 12)
      expected.append(try expected[index].map { try prepared.forward($0) })
      #expect(try walk.carry(expected[index], through: block) == expected[index + 1])
    }
    let before = read.places.count
    // Two sets side by side, every block read once.
    let (whole, reversed) = (expected[1], Array(expected[1].reversed()))
    #expect(try walk.carry([whole, reversed], from: 1) == [expected[4], expected[4].reversed()])
    #expect(read.places.dropFirst(before).elementsEqual(places(1..<4)))
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
      let model = try Self.model(tied: tied).model
      let (head, matrix) = try ModelWalk(model).head()
      #expect(head.linears.isEmpty == tied && head.norms.weights.count == 1)
      let expected = try tied ? model.embedding().table : model.head()["lm_head"]
      #expect(matrix.weight.dense() == expected.weight.dense())
    }
  }

  @Test func partsGoFromEmbeddingToHead() async throws {
    let (model, read) = try Self.model()
    var visited: [PartPlace] = []
    try await ModelWalk(model).parts { index, part in
      #expect(index == visited.count)
      visited.append(part.place)
    }
    #expect(visited == model.places && read.places == model.places)
  }

  @Test func aSweepReadsOneAheadAndWritesOneBehind() async throws {
    let (model, read) = try Self.model()
    let written = Mutex([Float?]())
    let all = model.places
    try await ModelWalk(model).sweep(
      all,
      into: { part in written.withLock { $0.append(part.linears.values.first?.bias?.first) } },
      { index, part in
        #expect(part.place == all[index])
        #expect((index + 1...index + 2).contains(read.places.count))
        #expect((max(0, index - 1)...index).contains(written.withLock { $0.count }))
        var made = part
        for name in part.linears.keys { made[name].bias = [Float(index)] }
        return made
      })
    #expect(read.places == all)
    #expect(written.withLock { $0 } == all.indices.map { Float($0) })
    try await ModelWalk(model).sweep([], into: { _ in Issue.record("nothing was made") }) { $1 }
  }

  @Test func aSweepEndsWithTheFirstFailure() async throws {
    let (model, read) = try Self.model()
    await #expect(throws: Broken()) {
      try await ModelWalk(model).sweep(model.places, into: { if $0.place == .decoder(index: 0) { throw Broken() } }) { $1 }
    }
    #expect(read.places.count <= 4)
    await #expect(throws: Broken()) {
      try await ModelWalk(model).sweep(model.places, into: { _ in }) { index, part in
        if index == 2 { throw Broken() }
        return part
      }
    }
  }
}
