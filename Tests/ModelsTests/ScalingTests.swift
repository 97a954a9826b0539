import CompressKit
import TestSupport
import Testing

@testable import Models

/// Moving scales changes weights and nothing else.
struct ScalingTests {
  static let configurations = [
    "grouped queries": TinyModel.config,
    "biases": """
    {"model_type":"qwen2","vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":1,"rms_norm_eps":1e-06,"rope_theta":10000.0,"tie_word_embeddings":true}
    """,
    "normalised queries and keys": """
    {"model_type":"qwen3","vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":10000.0,"attention_bias":true,"mlp_bias":true,
     "hidden_act":"gelu_pytorch_tanh"}
    """,
    "one head for each": """
    {"model_type":"llama","vocab_size":64,"hidden_size":32,"intermediate_size":64,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":4,"rms_norm_eps":1e-05,"attention_bias":true,"mlp_bias":true}
    """,
  ]

  private func scale(_ scaling: Scaling, key: String) -> [Float] {
    var random = KeyedRandomness(seed: 3, key: key)
    return (0..<scaling.channels).map { _ in Float.random(in: 0.2...5, using: &random) }
  }

  private func logits(of model: Model, _ change: (inout Block) -> Void) throws -> Matrix {
    let tokens = TinyModel.sequences(1, length: 40)[0]
    let table = try model.embedding()
    var states = try PreparedEmbedding(table)(tokens)
    for index in model.description.blocks.indices {
      var block = try model.block(index)
      change(&block)
      states = try PreparedBlock(block, positions: tokens.count).forward(states)
    }
    let head = try model.head()
    return head.finishLogits(head.input(states).times(transposed: (head.linears.first?.value.weight ?? table.table.weight).dense()))
  }

  private func distance(_ a: Matrix, _ b: Matrix) -> Float {
    let size = b.elements.map(abs).max() ?? 1
    return zip(a.elements, b.elements).reduce(0) { max($0, abs($1.0 - $1.1)) } / size
  }

  @Test(arguments: configurations.keys.sorted(), [DType.float32, .bfloat16, .float16])
  func logitsStayTheSame(configuration: String, type: DType) throws {
    let model = try TinyModel.model(try #require(Self.configurations[configuration]), dtype: type)
    let expected = try logits(of: model) { _ in }
    for index in try #require(model.description.blocks.first).scalings.indices {
      let scaled = try logits(of: model) { block in
        let scaling = block.description.scalings[index]
        scaling.apply(scale(scaling, key: block.name), to: &block)
      }
      #expect(distance(scaled, expected) < 1e-4, "scaling \(index)")
    }
    let all = try logits(of: model) { block in
      for (index, scaling) in block.description.scalings.enumerated() {
        scaling.apply(scale(scaling, key: "\(block.name) \(index)"), to: &block)
      }
    }
    #expect(distance(all, expected) < 1e-4)
    // The comparison would notice a scale that only arrived on one side.
    let wrong = try logits(of: model) { block in
      let scaling = block.description.scalings[0]
      let norms = block.norms
      scaling.apply(scale(scaling, key: block.name), to: &block)
      block.norms = norms
    }
    #expect(distance(wrong, expected) > 1e-2)
  }

  @Test(arguments: configurations.keys.sorted()) func shapesFitTheBlock(configuration: String) throws {
    let model = try TinyModel.model(try #require(Self.configurations[configuration]))
    let block = try model.block(0)
    let description = block.description
    #expect(description.scalings.map { Set($0.consumers) } == description.inputGroups.map { Set($0.linears) })
    for scaling in description.scalings {
      for name in scaling.consumers { #expect(block[name].weight.columns == scaling.columns) }
      switch scaling.producer {
      case .norm(let name): #expect(try #require(block.norms[name]).count == scaling.channels)
      case .linear(let name): #expect(block[name].weight.rows == scaling.channels)
      }
    }
    #expect((0..<4).map { description.rest(from: $0) } == [0..<2, 1..<2, 2..<4, 3..<4])
  }

  @Test func columnsOfOneHeadGroupShareTheirChannels() {
    // Two key-value heads of three channels, each serving two query heads.
    let scaling = Scaling(.linear("v"), into: ["o"], channels: 6, run: 3, repeats: 2)
    #expect(scaling.columns == 12)
    #expect((0..<12).map(scaling.channel) == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
    #expect(scaling.perColumn([10, 11, 12, 13, 14, 15]) == [10, 11, 12, 10, 11, 12, 13, 14, 15, 13, 14, 15])
    let values = (0..<12).map { Float($0) }
    #expect(scaling.channelMeans(values) == [1.5, 2.5, 3.5, 7.5, 8.5, 9.5])
    #expect(scaling.channelMaxima(values) == [3, 4, 5, 9, 10, 11])
    let plain = Scaling(.norm("n"), into: ["a"], channels: 5)
    #expect((0..<5).map(plain.channel) == [0, 1, 2, 3, 4])
  }

  @Test func whatWillBeStoredDecides() throws {
    var block = try TinyModel.model(dtype: .bfloat16).block(0)
    let scaling = block.description.scalings[0]
    block.norms["input_layernorm"]![7] = 0
    let before = block
    let asked = scale(scaling, key: "stored")
    let factors = scaling.apply(asked, to: &block)
    let (norm, old) = (block.norms["input_layernorm"]!, before.norms["input_layernorm"]!)
    #expect(factors[7] == 1 && norm[7] == 0)
    for channel in norm.indices where channel != 7 {
      #expect(norm[channel] == DType.bfloat16.rounded(norm[channel]))
      #expect(abs(factors[channel] / asked[channel] - 1) < 0.005)
      #expect(abs(norm[channel] * factors[channel] - old[channel]) <= 2e-7 * abs(old[channel]))
    }
    let (weight, original) = (block["self_attn.k_proj"].weight.dense(), before["self_attn.k_proj"].weight.dense())
    for column in 0..<weight.columns { #expect(weight[3, column] == original[3, column] * factors[column]) }
    #expect(block["self_attn.o_proj"].revision == before["self_attn.o_proj"].revision)
    #expect(block["self_attn.q_proj"].revision != before["self_attn.q_proj"].revision)
  }

  @Test func rowsTakeTheirBiasAlong() throws {
    let config = try #require(Self.configurations["biases"])
    var block = try TinyModel.model(config).block(0)
    let scaling = block.description.scalings[1]
    #expect(scaling.producer == .linear("self_attn.v_proj"))
    let bias = try #require(block["self_attn.v_proj"].bias)
    scaling.apply([Float](repeating: 4, count: scaling.channels), to: &block)
    #expect(block["self_attn.v_proj"].bias == bias.map { $0 / 4 })
  }
}
