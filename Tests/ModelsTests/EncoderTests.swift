import CompressKit
import Foundation
import TestSupport
import Testing

/// What encoders have that decoders have not, and the other way round.
struct EncoderTests {
  private static let tokens = TinyModel.sequences(1, length: 24)[0]

  /// More than one tile of queries, so that keys behind a tile count, too.
  @Test func everyTokenSeesEveryOther() throws {
    var attention = try #require(Families.model("bert").description.blocks.first?.attention)
    let (queries, keys, values) = (
      Matrix.random(rows: 150, columns: 32, key: "queries"), Matrix.random(rows: 150, columns: 32, key: "keys"),
      Matrix.random(rows: 150, columns: 32, key: "values")
    )
    let found = attention.attend(queries: queries, keys: keys, values: values)
    for (row, head) in [(0, 0), (127, 1), (128, 2), (149, 3)] {
      let scores = (0..<150).map { key in
        (0..<8).reduce(0.0) { $0 + Double(queries[row, head * 8 + $1]) * Double(keys[key, head * 8 + $1]) } / 8.0.squareRoot()
      }
      let weights = scores.map { exp($0 - scores.max()!) }
      let sum = weights.reduce(0, +)
      for column in head * 8..<head * 8 + 8 {
        let expected = (0..<150).reduce(0.0) { $0 + weights[$1] / sum * Double(values[$1, column]) }
        #expect(abs(Double(found[row, column]) - expected) < 1e-5)
      }
    }
    attention.isCausal = true
    let causal = attention.attend(queries: queries, keys: keys, values: values)
    #expect(causal.rows(149..<150).distance(to: found.rows(149..<150)) < 1e-6)
    #expect(causal.rows(0..<1).distance(to: values.rows(0..<1)) < 1e-6)
  }

  /// Scales and losses are about what a layer adds, not about what the norm makes of the sum.
  @Test func aContributionIsWhatIsAddedBeforeTheNorm() throws {
    let block = try Families.model("bert").block(0)
    let input = Matrix.random(rows: 5, columns: 64, key: "input")
    var expected = input.times(transposed: block["output.dense"].weight.dense())
    expected.add(row: try #require(block["output.dense"].bias))
    #expect(PreparedBlock(block, positions: 5).contribution(of: input, from: 3) == expected)
    let description = block.description
    #expect(description.residualReaders.allSatisfy { $0.norm == nil } && description.scalings.count == 1)
  }

  @Test func thereIsNoHead() throws {
    let model = try Families.model("bert")
    #expect(model.places.count == 3 && !model.places.contains(.head) && !model.description.isTied && !model.untied().description.hasLogits)
    let embedding = try model.embedding()
    #expect(embedding.norms.weights.keys.sorted() == ["embeddings.LayerNorm"] && embedding.tokenTypes?.rows == 2)
    #expect(throws: EvaluationError.noLogits) { try Generator(model, positions: 8) }
    #expect(CachedBlock.byteCount(of: try model.block(0), tokens: 9) == 0)
    #expect(throws: SequenceTooLong(tokens: 65, positions: 64)) { try model.hiddenStates(of: [Int32](repeating: 1, count: 65)) }
  }

  /// Sentence encoders leave the prefix out that models with a head have; poolers, heads and buffers are carried along.
  @Test func prefixesAndHeads() throws {
    let config = try ModelConfig(text: Families.configuration("bert").utf8)
    let tensors = try TinyModel.tensors(config)
    func vector(_ name: String, _ shape: [Int]) -> NamedTensor {
      let values = [Float](repeating: 0.5, count: shape.reduce(1, *))
      return NamedTensor(name: name, tensor: Tensor(values, shape: shape, dtype: .float32))
    }
    func model(_ prefix: String, _ more: [NamedTensor]) throws -> Model {
      let renamed = tensors.map { NamedTensor(name: prefix + $0.name, tensor: $0.tensor) }
      return try Model(Checkpoint(directory: Places.root, config: config, tensors: MemoryTensorSource(renamed + more)))
    }
    let expected = try Families.model("bert").hiddenStates(of: Self.tokens)
    let pooled = try model("", [vector("pooler.dense.weight", [32, 32]), vector("pooler.dense.bias", [32])])
    #expect(try pooled.hiddenStates(of: Self.tokens) == expected)
    #expect(pooled.carried.sorted() == ["pooler.dense.bias", "pooler.dense.weight"] && pooled.carriedModules == ["pooler.dense"])
    let masked = try model("bert.", [vector("cls.predictions.bias", [64]), vector("lm_head.weight", [64, 32])])
    #expect(try masked.hiddenStates(of: Self.tokens) == expected)
    #expect(masked.carried.sorted() == ["cls.predictions.bias", "lm_head.weight"])
    #expect(try masked.block(1).name == "bert.encoder.layer.1")
    #expect(throws: CheckpointError.missingTensor(name: "embeddings.word_embeddings.weight")) { try model("roberta.", []) }
  }
}
