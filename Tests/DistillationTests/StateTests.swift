import CompressKit
import TestSupport
import Testing

@testable import Distillation

/// Hidden states on the way, held against the teacher's.
struct StateTests {
  @Test func blocksAreComparedWithThoseThatDidTheirWork() {
    #expect(ComparedBlocks(2, ofStudent: 4, teacher: 4, kept: [0, 1, 2, 3]).teachers == [1: 1, 3: 3])
    // Blocks 2 and 3 were left out: what they made is block 1's work now.
    #expect(ComparedBlocks(4, ofStudent: 4, teacher: 6, kept: [0, 1, 4, 5]).teachers == [0: 0, 1: 3, 2: 4, 3: 5])
    #expect(ComparedBlocks(1, ofStudent: 2, teacher: 4, kept: [0, 1]).teachers == [1: 3])
    // Of another teacher the same share of the depth.
    #expect(ComparedBlocks(2, ofStudent: 4, teacher: 8, kept: []).teachers == [1: 3, 3: 7])
    #expect(ComparedBlocks(9, ofStudent: 3, teacher: 2, kept: []).teachers == [0: 0, 1: 0, 2: 1])
    #expect(ComparedBlocks(0, ofStudent: 3, teacher: 3, kept: [0, 1, 2]).teachers.isEmpty)
  }

  /// Mean relative error of the states behind a block.
  private static func error(of model: Model, from teacher: Model, behind block: Int) throws -> Double {
    let sequences = TinyModel.sequences(20, length: 40).suffix(8)
    let errors = try sequences.map { sequence in
      let states = try [model, teacher].map { model in
        var hidden = try PreparedEmbedding(try model.embedding())(sequence)
        for index in 0...block { hidden = try PreparedBlock(try model.block(index), positions: 40).forward(hidden) }
        return hidden
      }
      return StateLoss.relative(states[0], states[1]).loss
    }
    return errors.reduce(0, +) / Double(errors.count)
  }

  @Test func statesComeNearerWhereTheyCount() async throws {
    let model = try TinyModel.model()
    let rounding = "{ rtn: { bits: 2, group_size: 16 } }"
    func swept(_ share: Double) async throws -> Model {
      try await Swept(
        "\(rounding), { distill: { state_share: \(share), states: 2, epochs: 8, batch: 2, scale_rate: 0.01, rate: 0.01, validate_every: 1 } }",
        model
      ).model
    }
    let (rounded, without, with) = (try await Swept(rounding, model).model, try await swept(0), try await swept(100))
    let errors = try [rounded, without, with].map { try Self.error(of: $0, from: model, behind: 0) }
    #expect(errors[2] < 0.97 * errors[0] && errors[2] < 0.99 * errors[1], "\(errors)")
  }

  @Test func statesInOtherCoordinatesAreNotCompared() throws {
    let recipe = try Recipe(
      yaml: "passes: [ { rotate: {} }, { rtn: { bits: 4, group_size: 16 } }, { distill: { state_share: 1 } } ]", file: "test",
      passes: .standard)
    #expect(throws: PipelineError.self) { _ = try Pipeline(recipe.passes).plan(for: try TinyModel.model()) }
  }

  /// What pulls on a norm's weights is the derivative of the states' share of the loss.
  @Test func gradientsAreThoseOfTheStates() throws {
    let (model, teacher) = (try TinyModel.model(), try TinyModel.model(TinyModel.config.replacing("10000.0", with: "500.0")))
    let sequences = TinyModel.sequences(3, length: 20)
    let targets = try sequences.map { sequence in
      try PreparedBlock(try teacher.block(0), positions: 20).forward(try PreparedEmbedding(try teacher.embedding())(sequence))
    }
    let wanted = WantedStates(blocks: [0], weight: 3) { sequence, _ in targets[sequence] }
    var moving = MovingParameters()
    moving.norms = true
    func trainable(_ change: Float = 0, at place: Int = 0) throws -> TrainableModel {
      var blocks = try model.description.blocks.indices.map { try model.block($0) }
      blocks[0].norms.weights["input_layernorm"]![place] += change
      return TrainableModel(
        model.description, embedding: try model.embedding(), blocks: blocks, head: try model.head(), moving: moving, movesTables: false)
    }
    func gradient(_ change: Float = 0, at place: Int = 0, wanted: WantedStates? = wanted) throws -> TrainableModel.Gradient {
      try trainable(change, at: place).gradient(of: CrossEntropy(), on: sequences, wanted: wanted)
    }
    let (with, without) = (try gradient(), try gradient(wanted: nil))
    #expect(with.loss == without.loss && without.stateLoss == 0)
    for place in [0, 5, 17] {
      let found = Double(with.blocks[0].norms["input_layernorm"]![place] - without.blocks[0].norms["input_layernorm"]![place])
      let step: Float = 0.02
      let expected = (try gradient(step, at: place).stateLoss - gradient(-step, at: place).stateLoss) / Double(2 * step)
      #expect(abs(found - expected) < 0.01 * abs(expected) + 1e-5, "\(found) against \(expected)")
    }
  }
}
