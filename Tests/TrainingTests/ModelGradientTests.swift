import CompressKit
import Foundation
import TestSupport
import Testing

/// The way back through whole models against PyTorch's, through transformers' own models.
struct ModelGradientTests {
  private static let ids: [Int32] = [3, 5, 9, 2, 7, 31, 11, 4, 63, 0, 17, 42, 5, 9, 58, 23, 36, 1, 29, 50]
  private static let families = Families.names.filter { !Families.encoders.contains($0) }

  private static func fixture(_ name: String) throws -> JSON {
    let file = Places.root.appending(path: "Tests/TrainingTests/Fixtures/gradients.json")
    return try #require(try JSON(parsing: Data(contentsOf: file))[name])
  }

  private static func trainable(_ model: Model) throws -> TrainableModel {
    var moving = MovingParameters()
    (moving.weights, moving.norms, moving.biases) = (true, true, true)
    return TrainableModel(
      model.description, embedding: try model.embedding(), blocks: try model.description.blocks.indices.map { try model.block($0) },
      head: try model.head(),
      moving: moving, movesTables: true)
  }

  /// Gradients under the names, and in the shapes, that the parameters have on disk.
  private static func tensors(_ model: TrainableModel, _ gradient: TrainableModel.Gradient) throws -> [NamedTensor] {
    var parts: [any ModelPart] = zip(model.blocks, gradient.blocks).map { block, gradient in
      var part = block.original
      for name in part.linears.keys {
        part[name].weight = gradient.weights[name] ?? Matrix(rows: part[name].weight.rows, columns: part[name].weight.columns)
        if let bias = part[name].bias { part[name].bias = gradient.biases[name] ?? bias.map { _ in 0 } }
      }
      for (name, norm) in gradient.norms { part.norms[name] = norm.map { $0 + part.norms.offset } }
      for (name, bias) in gradient.normBiases { part.norms.biases[name] = bias }
      for (name, tensor) in part.parameters {
        let values = gradient.parameters[name] ?? Array(repeating: 0, count: tensor.shape.reduce(1, *))
        part.parameters[name] = Tensor(values, shape: tensor.shape, dtype: .float32)
      }
      return part
    }
    var (embedding, head) = (model.embedding, model.head)
    (embedding.positions, embedding.norms) = (nil, PartNorms())
    embedding.table.weight = try #require(gradient.table)
    for name in head.linears.keys { (head[name].weight, head[name].bias) = (try #require(gradient.head), nil) }
    for (name, norm) in gradient.headNorms { head.norms[name] = norm.map { $0 + head.norms.offset } }
    for (name, bias) in gradient.headNormBiases { head.norms.biases[name] = bias }
    parts += [embedding, head] as [any ModelPart]
    return try parts.flatMap { try PlainFormat().encode($0) }
  }

  @Test(arguments: families) func everyParameterIsPulledAsByPyTorch(_ name: String) throws {
    let model = try Families.model(name)
    #expect(model.description.blocks.allSatisfy { $0.gradientObstacle == nil })
    let fixture = try Self.fixture(name)
    let trainable = try Self.trainable(model)
    let gradient = try trainable.gradient(of: CrossEntropy(), on: [Self.ids])
    #expect(abs(gradient.loss - (try #require(fixture["loss"]?.double))) < 2e-5)
    let expected = try #require(fixture["tensors"]?.members)
    var seen = Set<String>()
    for tensor in try Self.tensors(trainable, gradient) {
      let values = tensor.tensor.floats().map { Double($0) }
      guard let pair = try fixture["tensors"]?[tensor.name]?.elements?.map({ try #require($0.double) }) else {
        Issue.record("\(tensor.name) is not among PyTorch's")
        continue
      }
      seen.insert(tensor.name)
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      let product = values.enumerated().reduce(0) { $0 + $1.element * cos(Double($1.offset)) }
      let tolerance = 1e-4 * pair[0] + 1e-6
      #expect(abs(norm - pair[0]) < tolerance, "\(name) \(tensor.name): norm \(norm) against \(pair[0])")
      #expect(abs(product - pair[1]) < tolerance, "\(name) \(tensor.name): product \(product) against \(pair[1])")
    }
    // Learned positions do not move, and neither do a norm on the embedding and what a head adds to logits.
    let still = ["wpe", "embed_positions", "word_embeddings_layernorm", "lm_head.bias"]
    let missing = expected.map(\.key).filter { key in !seen.contains(key) && !still.contains { key.contains($0) } }
    #expect(missing.isEmpty, "\(name): \(missing)")
  }

  /// As many threads as there are, or one, with memory for what happens inside blocks, for one block's, or for none: the same bytes.
  @Test func threadsAndMemoryChangeNothing() throws {
    let trainable = try Self.trainable(try Families.model("qwen3-moe"))
    let sequences = TinyModel.sequences(5, length: 33)
    func gradient(memory: Int = 0) throws -> [[Float]] {
      let found = try trainable.gradient(of: CrossEntropy(), on: sequences, memory: memory)
      return [found.table!.elements, found.head!.elements]
        + found.blocks.flatMap { block in block.weights.sorted { $0.key.rawValue < $1.key.rawValue }.map(\.value.elements) }
    }
    let alone = try Parallel.$width.withValue(1) { try gradient() }
    #expect(try Parallel.$width.withValue(3) { try gradient() } == alone)
    let oneBlock = 4 * trainable.blocks[0].original.description.recordedNumbers * 5 * 33
    #expect(try gradient(memory: oneBlock) == alone)
    #expect(try gradient(memory: .max) == alone)
  }
}
