import CompressKit
import Foundation
import TestSupport
import Testing

/// The stream against forward passes from scratch.
@Suite struct CalibrationStreamTests {
  /// Where activations may be kept.
  enum Room: CaseIterable {
    case memory
    /// All but the wide input of the down-projection fits.
    case narrow
    case scratch

    func bytes(_ tokens: Int, _ description: ModelDescription) -> Int {
      switch self {
      case .memory: .max
      case .narrow: tokens * 4 * (2 * description.hiddenSize + 40)
      case .scratch: 0
      }
    }
  }

  private let model: Model
  private let sequences = TinyModel.sequences(5, length: 12) + TinyModel.sequences(2, length: 7)

  init() throws { model = try TinyModel.model() }

  private func stream(_ room: Room, scratch: URL = FileManager.default.temporaryDirectory) throws -> CalibrationStream {
    try CalibrationStream(
      sequences, description: model.description, memory: room.bytes(sequences.reduce(0) { $0 + $1.count }, model.description),
      scratch: scratch)
  }

  /// What the embedding gives, looked up by hand.
  private func embedded() throws -> [Matrix] {
    let block = try model.embedding()
    let table = block["embed_tokens"].weight.dense()
    return sequences.map { ids in Matrix(stacking: ids.map { table.rows(Int($0)..<Int($0) + 1) }) }
  }

  /// The inputs of a group from a forward pass that knows nothing of stages kept.
  private func inputs(_ stage: Int, in block: Block, _ hidden: [Matrix]) throws -> Matrix {
    let prepared = PreparedBlock(block, positions: 12)
    return Matrix(
      stacking: try hidden.map {
        var state = try prepared.start($0)
        while state.stage < stage { try prepared.advance(&state) }
        return state.input!
      })
  }

  private func hessian(_ input: Matrix) -> Hessian {
    var hessian = Hessian(features: input.columns)
    hessian.update(input)
    return hessian
  }

  private func change(_ names: [LinearName], of block: inout Block) {
    for name in names {
      let old = block[name].weight.dense()
      let change = Matrix.random(rows: old.rows, columns: old.columns, key: block.fullName(of: name), scale: 0.1)
      block[name].weight = Matrix(rows: old.rows, columns: old.columns, elements: zip(old.elements, change.elements).map { $0 + $1 })
    }
  }

  @Test(arguments: Room.allCases)
  func everyGroupSeesTheOnesBeforeItAsTheyAre(room: Room) throws {
    let stream = try stream(room)
    try stream.embed(model.embedding())
    var hidden = try embedded()
    for index in 0..<2 {
      var block = try model.block(index)
      for (stage, group) in block.inputGroups.enumerated() {
        let expected = try inputs(stage, in: block, hidden)
        #expect(try stream.statistic(Seen.self, of: group, in: block).input == expected, "block \(index), group \(stage)")
        #expect(try stream.statistic(Hessian.self, of: group, in: block) == hessian(expected))
        change(group.linears, of: &block)
      }
      let passes = try stream.finish(block).forwardPasses
      let prepared = PreparedBlock(block, positions: 12)
      hidden = try hidden.map { try prepared.forward($0) }
      #expect(passes >= 1 && passes <= (room == .memory ? 1 : 1.9))
    }
    let head = try model.head()
    let seen = try stream.statistic(Seen.self, of: InputGroup(["lm_head"]), in: head).input
    let normalized = Matrix(stacking: hidden.map { head.input($0) })
    #expect(seen == normalized)
    let stacked = Matrix(stacking: hidden)
    for row in 0..<seen.rows {
      let square = (0..<32).reduce(0.0) { $0 + Double(stacked[row, $1]) * Double(stacked[row, $1]) } / 32
      let factor = 1 / (square + 1e-5).squareRoot()
      for i in 0..<32 {
        let expected = Double(stacked[row, i]) * factor * Double(head.norms["model.norm"]![i])
        #expect(abs(Double(seen[row, i]) - expected) < 1e-4)
      }
    }
  }

  /// Multiply-adds per token by hand: q 1024, k and v 512 each, o 1024, gate, up and down 2048 each.
  @Test(arguments: [(Room.memory, 1.0), (.narrow, 13312.0 / 9216), (.scratch, 13312.0 / 9216)])
  func countsForwardPasses(room: Room, expected: Double) throws {
    let stream = try stream(room)
    try stream.embed(model.embedding())
    for index in 0..<2 {
      var block = try model.block(index)
      for group in block.inputGroups {
        _ = try stream.statistic(Hessian.self, of: group, in: block)
        change(group.linears, of: &block)
      }
      let passes = try stream.finish(block).forwardPasses
      #expect(abs(passes - expected) < 1e-9)
      #expect(passes <= 1.5)
    }
  }

  @Test func aBlockNobodyAskedAboutCostsOnePass() throws {
    let stream = try stream(.memory)
    try stream.embed(model.embedding())
    #expect(try stream.finish(model.block(0)).forwardPasses == 1)
  }

  @Test(arguments: Room.allCases)
  func startsOverWhenAnUpstreamWeightChanged(room: Room) throws {
    let stream = try stream(room)
    try stream.embed(model.embedding())
    let hidden = try embedded()
    var block = try model.block(0)
    let groups = block.inputGroups
    for asked in [3, 2, 1] {
      _ = try stream.statistic(Hessian.self, of: groups[asked], in: block)
      for changed in groups[..<asked].flatMap(\.linears) {
        change([changed], of: &block)
        let seen = try stream.statistic(Seen.self, of: groups[asked], in: block).input
        #expect(try seen == inputs(asked, in: block, hidden), "group \(asked) after a change of \(changed)")
      }
    }
    _ = try stream.finish(block)
    let prepared = PreparedBlock(block, positions: 12)
    let after = try hidden.map { try prepared.forward($0) }
    let next = try model.block(1)
    #expect(try stream.statistic(Seen.self, of: groups[0], in: next).input == inputs(0, in: next, after))
  }

  @Test(arguments: Room.allCases)
  func anyOrderOfQuestionsGetsTheSameAnswers(room: Room) throws {
    let stream = try stream(room)
    try stream.embed(model.embedding())
    let hidden = try embedded()
    let block = try model.block(0)
    for stage in [2, 2, 0, 3, 3, 1, 2, 3, 0, 1] {
      #expect(try stream.statistic(Seen.self, of: block.inputGroups[stage], in: block).input == inputs(stage, in: block, hidden))
    }
  }

  @Test(arguments: Room.allCases)
  func startsOverWhenANormChanged(room: Room) throws {
    let stream = try stream(room)
    try stream.embed(model.embedding())
    let hidden = try embedded()
    var block = try model.block(0)
    _ = try stream.statistic(Hessian.self, of: block.inputGroups[1], in: block)
    block.norms["input_layernorm"] = block.norms["input_layernorm"]!.enumerated().map { $1 * (1 + Float($0) / 32) }
    #expect(try stream.statistic(Seen.self, of: block.inputGroups[1], in: block).input == inputs(1, in: block, hidden))
  }

  @Test func askingAgainAndChangingDownstreamCostNothing() throws {
    let stream = try stream(.memory)
    try stream.embed(model.embedding())
    var block = try model.block(0)
    for group in block.inputGroups {
      _ = try stream.statistic(Hessian.self, of: group, in: block)
      _ = try stream.statistic(InputNorm.self, of: InputGroup([group.linears.last!]), in: block)
      change(group.linears, of: &block)
    }
    #expect(try stream.finish(block).forwardPasses == 1)
  }

  @Test func longCalibrationDataIsAddedInItsOrder() throws {
    let many = TinyModel.sequences(90, length: 64)
    let stream = try CalibrationStream(
      many, description: model.description, memory: .max, scratch: FileManager.default.temporaryDirectory)
    let embedding = try model.embedding()
    try stream.embed(embedding)
    let table = embedding["embed_tokens"].weight.dense()
    let block = try model.block(0)
    let prepared = PreparedBlock(block, positions: 64)
    let expected = try many.map { ids in try prepared.start(Matrix(stacking: ids.map { table.rows(Int($0)..<Int($0) + 1) })).input! }
    for width in [1, 3] {
      let seen = try Parallel.$width.withValue(width) { try stream.statistic(Seen.self, of: block.inputGroups[0], in: block) }
      #expect(seen.input == Matrix(stacking: expected))
    }
  }

  @Test func theScratchFileHasNoName() throws {
    try Places.withTemporaryDirectory { directory in
      let stream = try stream(.scratch, scratch: directory)
      try stream.embed(model.embedding())
      let block = try model.block(0)
      _ = try stream.statistic(Hessian.self, of: block.inputGroups[3], in: block)
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
      #expect(throws: ScratchError.self) { try self.stream(.scratch, scratch: directory.appending(path: "absent")) }
    }
  }

  @Test func withoutSequencesThereIsNoStatistic() throws {
    let stream = try CalibrationStream(
      [], description: model.description, memory: .max, scratch: FileManager.default.temporaryDirectory)
    let block = try model.block(0)
    #expect(throws: MissingCalibration.self) { try stream.statistic(Hessian.self, of: block.inputGroups[0], in: block) }
  }

  @Test(arguments: [Int32(64), -1, .max])
  func refusesTokensOutOfTheVocabulary(token: Int32) throws {
    let stream = try CalibrationStream(
      [[1, 2, token]], description: model.description, memory: .max, scratch: FileManager.default.temporaryDirectory)
    let error = #expect(throws: TokenOutOfRange.self) { try stream.embed(model.embedding()) }
    #expect(error?.token == token && error?.vocabularySize == 64)
  }
}
