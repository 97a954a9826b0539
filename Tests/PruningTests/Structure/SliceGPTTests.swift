import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Pruning

@Suite struct SliceGPTTests {
  /// A model whose hidden states never leave a space of `rank` dimensions, in no coordinates of their own.
  private func confined(to rank: Int, _ config: String = TinyModel.config) throws -> Model {
    var checkpoint = try EditableCheckpoint(config)
    let basis = Matrix.random(rows: 32, columns: rank, key: "basis", scale: 0.3)
    func confine(_ name: String, rows: Int, columns: Int, _ change: (Matrix) -> Matrix) {
      let values = Matrix(rows: rows, columns: columns, elements: checkpoint[name]!.floats())
      checkpoint[name] = Tensor(change(values).elements, shape: [rows, columns], dtype: .float32)
    }
    // x · B · Bᵀ for what is written, B · Bᵀ · W for what writes.
    func projected(_ rows: Matrix) -> Matrix { rows.times(transposed: basis.transposed()).times(transposed: basis) }
    confine("model.embed_tokens.weight", rows: 64, columns: 32, projected)
    for layer in 0..<2 {
      for (name, columns) in [("self_attn.o_proj", 32), ("mlp.down_proj", 64)] {
        confine("model.layers.\(layer).\(name).weight", rows: 32, columns: columns) { projected($0.transposed()).transposed() }
      }
    }
    return try checkpoint.model()
  }

  @Test func whatFitsIntoFewerDirectionsIsExact() async throws {
    for config in [TinyModel.config, TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true")] {
      let model = try confined(to: 16, config)
      var pass = SliceGPT()
      pass.hidden = 16
      let swept = try await Swept([pass], on: model)
      #expect(swept.model.description.hiddenSize == 16 && swept.model.description.head == "lm_head")
      #expect(try drift(model, swept.model) < 1e-4)
    }
  }

  @Test func directionsBeatDimensions() async throws {
    let model = try confined(to: 20)
    var (slice, width) = (SliceGPT(), PruneWidth())
    slice.hidden = 20
    (width.hidden, width.importance) = (20, .activations)
    let (sliced, narrow) = (try await Swept([slice], on: model), try await Swept([width], on: model))
    #expect(try drift(model, sliced.model) < drift(model, narrow.model))
  }

  @Test func thePublishedMethodLosesNothingWhereNothingIsLost() throws {
    let model = try confined(to: 16)
    let sequences = TinyModel.sequences(4, length: 32)
    let head = try HeadDivergence(model)
    func hidden(_ size: Int) throws -> [Matrix] {
      try #require(try ProjectedModel(model, calibration: sequences, size: size)).hidden(of: sequences)
    }
    let whole = try hidden(32)
    #expect(try head.mean(of: try hidden(16), from: whole) < 1e-7)
    #expect(try head.mean(of: try hidden(8), from: whole) > head.mean(of: try hidden(12), from: whole))
    let block = model.description.blocks[0]
    #expect(ProjectedModel.weights(of: block, size: 16) == block.weights / 2 + 2 * 16 * 16)
  }

  @Test func whatNoConfigurationCanSayIsRefused() throws {
    let yaml = """
      calibration: { tokens: c.npy }
      passes:
        - slicegpt: { bases: per_block }
      """
    let error = #expect(throws: RecipeError.self) { try Recipe(yaml: yaml, file: "r.yaml", passes: .standard) }
    #expect(error?.description.contains("skip connections") == true)
  }

  @Test func whatIsWrittenIsWhatWasMade() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await TinyModel.write(
        to: source, TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true"), dtype: .float32)
      try TinyModel.write(tokens: TinyModel.sequences(8, length: 32).flatMap { $0 }, to: directory.appending(path: "c.npy"))
      let recipe = try Recipe(
        yaml: "calibration: { tokens: c.npy, length: 32 }\npasses:\n  - slicegpt: { ratio: 0.25 }\noutput: { format: safetensors }\n",
        file: "recipe.yaml", passes: .standard)
      let output = directory.appending(path: "out")
      _ = try await Compressor(recipe: recipe, bases: [directory]).run(try Checkpoint(source), to: output)
      let swept = try await Swept(recipe.passes, on: try Model(Checkpoint(source)))
      let written = try Model(Checkpoint(output))
      #expect(written.description == swept.model.description)
      #expect(try drift(swept.model, written) == 0)
      #expect(try Checkpoint(output).config.json["tie_word_embeddings"]?.bool == false)
    }
  }
}
