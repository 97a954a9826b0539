import CompressKit
import Foundation
import TestSupport
import Testing

/// Experts that lie together in one tensor.
struct ExpertStackTests {
  private static let tokens = TinyModel.sequences(1, length: 24)[0]

  private static func config(_ name: String) throws -> ModelConfig { try ModelConfig(text: Families.configuration(name).utf8) }

  private static func model(_ name: String, _ tensors: [NamedTensor]) throws -> Model {
    try Model(Checkpoint(directory: Places.root, config: config(name), tensors: MemoryTensorSource(tensors)))
  }

  /// Every number of every expert, by its place in the tensor as the family's makers lay it out.
  @Test(arguments: Families.stacked) func everyNumberIsFoundInItsPlace(_ name: String) throws {
    let model = try Families.model(name)
    let block = try model.block(1)
    let stored = try #require(block.description.feedForward?.mixture?.stacked)
    let size = try #require(block.description.feedForward?.size)
    let experts = 4
    for expert in 0..<experts {
      let network = try #require(block.description.feedForward?.expert(expert))
      for (part, linear) in network.readers.enumerated() {
        let weight = block[linear].weight.dense()
        #expect(weight.rows == size && weight.columns == 32)
        for row in 0..<size {
          let output = stored.order == .halves ? part * size + row : 2 * row + part
          for column in 0..<32 {
            let place = stored.isTransposed ? column * 2 * size + output : output * 32 + column
            #expect(weight[row, column] == TinyModel.element(block.prefix + stored.readers, expert * 2 * size * 32 + place))
          }
          if let bias = block[linear].bias {
            #expect(bias[row] == TinyModel.element(block.prefix + stored.readers + "_bias", expert * 2 * size + output))
          }
        }
      }
      let down = block[network.down].weight.dense()
      for row in 0..<32 {
        for column in 0..<size {
          let place = stored.isTransposed ? column * 32 + row : row * size + column
          #expect(down[row, column] == TinyModel.element(block.prefix + stored.down, expert * size * 32 + place))
        }
      }
    }
  }

  /// Savers write either way round: the shape says which, unless it is square.
  @Test(arguments: Families.stacked) func eitherWayRoundIsRead(_ name: String) throws {
    let config = try Self.config(name)
    let turned = try TinyModel.tensors(config).map { named -> NamedTensor in
      let shape = named.info.shape
      guard shape.count == 3, shape[1] != shape[2], !named.name.contains("conv1d") else { return named }
      let matrices = (0..<shape[0]).flatMap { expert in
        Matrix(rows: shape[1], columns: shape[2], elements: named.tensor.entry(expert).floats()).transposed().elements
      }
      return NamedTensor(name: named.name, tensor: Tensor(matrices, shape: [shape[0], shape[2], shape[1]], dtype: .float32))
    }
    #expect(try Self.model(name, turned).logits(of: Self.tokens) == Families.model(name).logits(of: Self.tokens))
  }

  /// The same model with a tensor for every expert, as transformers saves some of these families and compressed checkpoints are written.
  @Test(arguments: Families.stacked) func oneByOneIsRead(_ name: String) throws {
    let model = try Families.model(name)
    let separate = try TinyModel.tensors(try Self.config(name)).filter { !$0.name.contains(".experts.") && !$0.name.contains("moe.") }
    var experts: [NamedTensor] = []
    for index in model.description.blocks.indices {
      let block = try model.block(index)
      guard let mixture = block.description.feedForward?.mixture else { continue }
      for linear in block.description.routedExperts + mixture.routers {
        let weight = block[linear].weight.dense()
        let module = block.fullName(of: linear)
        experts.append(
          NamedTensor(name: module + ".weight", tensor: Tensor(weight.elements, shape: [weight.rows, weight.columns], dtype: .float32)))
        guard let bias = block[linear].bias else { continue }
        experts.append(NamedTensor(name: module + ".bias", tensor: Tensor(bias, shape: [bias.count], dtype: .float32)))
      }
    }
    let known = Set(experts.map(\.name))
    let again = try Self.model(name, separate.filter { !known.contains($0.name) } + experts)
    #expect(again.carried.isEmpty)
    #expect(try again.logits(of: Self.tokens) == model.logits(of: Self.tokens))
  }

  /// What nobody changed is written as the bytes that were read, and of one changed expert nothing else moves.
  @Test(arguments: Families.stacked, [DType.float32, .bfloat16]) func stacksAreWrittenBack(_ name: String, dtype: DType) throws {
    let source = Dictionary(
      uniqueKeysWithValues: try TinyModel.tensors(try Self.config(name), dtype: dtype).map { ($0.name, $0.tensor) })
    var block = try Families.model(name, dtype: dtype).block(0)
    func written() throws -> [String: Tensor] {
      Dictionary(uniqueKeysWithValues: try PlainFormat().encode(block).map { ($0.name, $0.tensor) })
    }
    let same = try written()
    for stack in block.denseStacks() {
      let name = block.prefix + stack.name
      #expect(same[name]?.bytes == source[name]?.bytes && same[name]?.shape == stack.shape)
      if let bias = stack.biasName { #expect(same[block.prefix + bias]?.bytes == source[block.prefix + bias]?.bytes) }
    }
    let changed = try #require(block.description.feedForward?.expert(2).readers[1])
    block[changed].weight = Matrix(rows: block[changed].weight.rows, columns: 32)
    let other = try written()
    let (readers, down) = (block.denseStacks()[0], block.denseStacks()[1])
    let (before, after) = (try #require(source[block.prefix + readers.name]), try #require(other[block.prefix + readers.name]))
    for expert in [0, 1, 3] { #expect(after.entry(expert).bytes == before.entry(expert).bytes) }
    let zeros = after.entry(2).floats().count { $0 == 0 }
    #expect(zeros >= block[changed].weight.rows * 32 && zeros < block[changed].weight.rows * 32 + 32)
    #expect(other[block.prefix + down.name]?.bytes == source[block.prefix + down.name]?.bytes)
  }

  /// One compressed expert, and runtimes look for all of them one by one.
  @Test func compressedExpertsAreWrittenOneByOne() throws {
    var block = try Families.model("gpt-oss", dtype: .bfloat16).block(0)
    let network = try #require(block.description.feedForward?.expert(0))
    block[network.down].inputQuantization = InputQuantization(bits: 8, granularity: .tensor)
    #expect(block.denseStacks().isEmpty)
    block[network.down].inputQuantization = nil
    block[network.down].weight = LowRankMatrix(left: Matrix(rows: 32, columns: 1), right: Matrix(rows: 1, columns: 64))
    // A format of numbers alone writes any weight as such.
    #expect(block.denseStacks().isEmpty && block.denseStacks(writingAll: true).count == 2)
    block[network.down].weight = Matrix(rows: 32, columns: 64)
    #expect(block.denseStacks().count == 2)
  }

  /// A file of tensors for each expert may have several types; a stack has one, that holds all of them.
  @Test func severalTypesBecomeOneThatHoldsAll() throws {
    var block = try Families.model("gpt-oss", dtype: .bfloat16).block(0)
    let name = try #require(block.description.feedForward?.expert(2).down)
    let values = (0..<32 * 64).map { 1 + Float($0) / 65_536 }
    let exact = Tensor(values, shape: [32, 64], dtype: .float32)
    block[name] = Linear(weight: StoredWeight(exact), bias: block[name].bias, storageType: .float32)
    let written = try PlainFormat().encode(block).first { $0.name.hasSuffix("experts.down_proj") }
    let tensor = try #require(written).tensor
    #expect(written?.info == TensorInfo(dtype: .float32, shape: [4, 64, 32]))
    #expect(tensor.entry(2).floats() == Matrix(rows: 32, columns: 64, elements: values).transposed().elements)
    let first = try #require(block.description.feedForward?.expert(0).down)
    #expect(tensor.entry(0).floats() == block[first].weight.dense().transposed().elements)
  }

  @Test func anotherShapeIsRefused() throws {
    let tensors = try TinyModel.tensors(try Self.config("gpt-oss")).map { named -> NamedTensor in
      guard named.name.hasSuffix("0.mlp.experts.down_proj") else { return named }
      return NamedTensor(name: named.name, tensor: Tensor([Float](repeating: 0, count: 3 * 64 * 32), shape: [3, 64, 32], dtype: .float32))
    }
    #expect(
      throws: CheckpointError.wrongShape(
        tensor: "model.layers.0.mlp.experts.down_proj", expected: [4, 64, 32], found: [3, 64, 32])
    ) { try Self.model("gpt-oss", tensors) }
  }

  @Test func anUnreadableNumberIsNamed() throws {
    let tensors = try TinyModel.tensors(try Self.config("gpt-oss")).map { named -> NamedTensor in
      guard named.name.hasSuffix("1.mlp.experts.gate_up_proj") else { return named }
      var values = named.tensor.floats()
      values[values.count - 1] = .nan
      return NamedTensor(name: named.name, tensor: Tensor(values, shape: named.info.shape, dtype: .float32))
    }
    let model = try Self.model("gpt-oss", tensors)
    let error = #expect(throws: CheckpointError.self) { try model.block(1) }
    #expect("\(try #require(error))".contains("model.layers.1.mlp.experts.3.gate_proj"))
  }
}
