import CompressKit
import Foundation
import TestSupport
import Testing

/// Collects what a sweep hands on.
private actor Collected: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

private let config = """
  {"model_type":"llama","vocab_size":64,"hidden_size":256,"intermediate_size":288,"num_hidden_layers":3,"num_attention_heads":8,
   "num_key_value_heads":2,"rms_norm_eps":1e-05,"max_position_embeddings":64,"tie_word_embeddings":false}
  """

private func sweep(
  _ pass: BlockQuantization, _ json: String = config, calibrated: Bool = false, strict: Bool = false
) async throws -> (parts: [any ModelPart], report: Report, model: Model) {
  let model = try TinyModel.model(json)
  let sink = Collected()
  let options = SweepOptions(calibration: calibrated ? TinyModel.sequences(4, length: 32) : [], strict: strict)
  let report = try await Pipeline([pass]).run(on: model, options: options, into: sink)
  return (await sink.parts, report, model)
}

private func pass(_ name: String, _ importance: BlockQuantization.Importance = .none) -> BlockQuantization {
  var pass = BlockQuantization()
  pass.type = BlockQuantization.Choice(name)!
  pass.importance = importance
  return pass
}

extension ModelPart {
  fileprivate func type(_ name: LinearName) -> BlockType? { (self[name].weight as? BlockQuantizedMatrix)?.type }
}

struct BlockQuantizationTests {
  @Test func mixturesPutEveryWeightIntoItsType() async throws {
    let (parts, report, _) = try await sweep(pass("q4_k_m"))
    #expect(parts[0].type("embed_tokens") == .q4_k && parts[4].type("lm_head") == .q6_k)
    #expect(parts[1...3].map { $0.type("self_attn.v_proj") } == [.q4_k, .q4_k, .q6_k])
    #expect(parts[1...3].map { $0.type("self_attn.q_proj") } == [.q4_k, .q4_k, .q4_k])
    // Rows of 288 are no whole number of 256: the fallback is what llama.cpp takes, and it is reported.
    #expect(parts[1...3].map { $0.type("mlp.down_proj") } == [.q5_0, .q5_0, .q8_0])
    #expect(report.fallbacks.map(\.layer) == (0..<3).map { "model.layers.\($0).mlp.down_proj" })
    #expect(report.layers.count == 23 && report.layers.allSatisfy { $0.scheme != nil && $0.metrics["relative_weight_error"]! < 0.01 })
    #expect(report.layers.first { $0.layer == "lm_head" }?.metrics["bits_per_weight"] == 6.5625)
  }

  @Test func aStrictRunRefusesFallbacks() async throws {
    await #expect(throws: PipelineError.self) { _ = try await sweep(pass("q4_k_m"), strict: true) }
    _ = try await sweep(pass("q8_0"), strict: true)
  }

  @Test func weightsAreTheBytesOfTheirType() async throws {
    let (parts, _, model) = try await sweep(pass("q5_1"))
    for (place, part) in zip(model.places, parts) {
      let original = try model.part(place)
      for (name, linear) in part.linears {
        let expected = BlockQuantizedMatrix(original[name].weight.dense(), as: place == .head ? .q6_k : .q5_1)
        #expect(linear.weight as? BlockQuantizedMatrix == expected, "\(place) \(name)")
      }
    }
  }

  @Test func pureTypesKnowNoRoles() async throws {
    var pure = pass("q4_0")
    pure.pure = true
    let (parts, _, _) = try await sweep(pure)
    #expect(parts[4].type("lm_head") == .q4_0)
    #expect(try await sweep(pass("mxfp4")).parts[4].type("lm_head") == .mxfp4)
  }

  /// Importances are mean squares of what the linear reads, on its way through the blocks quantized before it.
  @Test func importanceIsTheMeanSquareOfTheInputs() async throws {
    let (parts, _, model) = try await sweep(pass("q4_0", .activations), calibrated: true)
    let tokens = TinyModel.sequences(4, length: 32)
    let embedding = PreparedEmbedding(try #require(parts[0] as? Embedding))
    // The first group reads the normalised embedding.
    let first = try model.block(0)
    var (sums, count) = ([Double](repeating: 0, count: 256), 0)
    for sequence in tokens {
      let input = try embedding(sequence).rmsNormalized(weight: first.norms["input_layernorm"]!, epsilon: 1e-5)
      for row in 0..<input.rows {
        count += 1
        for i in 0..<256 { sums[i] += Double(input[row, i]) * Double(input[row, i]) }
      }
    }
    let importance = sums.map { Float($0 / Double(count)) }
    for name: LinearName in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] {
      let expected = BlockQuantizedMatrix(first[name].weight.dense(), as: .q4_0, importance: importance)
      #expect(parts[1][name].weight as? BlockQuantizedMatrix == expected, "\(name)")
      #expect(expected != BlockQuantizedMatrix(first[name].weight.dense(), as: .q4_0))
    }
    let table = try model.embedding()["embed_tokens"].weight.dense()
    #expect(parts[0]["embed_tokens"].weight as? BlockQuantizedMatrix == BlockQuantizedMatrix(table, as: .q4_0))
  }

  @Test func importanceNeedsData() async throws {
    await #expect(throws: PipelineError.self) { _ = try await sweep(pass("q4_0", .activations)) }
    #expect(!pass("q4_0").usesCalibration && pass("q4_0", .activations).usesCalibration)
  }

  @Test func inputsThatAreNeverActiveCountAlike() {
    #expect(BlockQuantization.usable([0, 0, 1, 0, 0, 0], blockLength: 2) == [1, 1, 1, 0, 1, 1])
  }

  @Test(arguments: ["q4_k_m", "q2_k", "q8_0", "iq4_xs", "f16", "nvfp4"], [false, true])
  func thePlanIsExact(_ name: String, _ tied: Bool) async throws {
    let json = config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":\(tied)")
    let (parts, _, model) = try await sweep(pass(name), json)
    let plan = try Pipeline([pass(name)]).plan(for: model)
    let found = parts.flatMap { part in
      part.inputGroups.flatMap(\.linears).map { (part.fullName(of: $0), part[$0].weight as? BlockQuantizedMatrix) }
    }
    #expect(plan.map(\.name) == found.map(\.0))
    for (planned, (_, weight)) in zip(plan, found) {
      #expect(planned.scheme == weight?.type.name && planned.storedBits == weight?.storedBits, "\(planned.name)")
    }
  }

  @Test func theSelectorDecidesWhatIsTouched() async throws {
    var some = pass("q8_0")
    some.layers = LayerSelector(include: ["mlp.*"])
    let (parts, report, model) = try await sweep(some)
    #expect(report.layers.count == 9 && parts[0].type("embed_tokens") == nil && parts[1].type("self_attn.q_proj") == nil)
    #expect(parts[1].type("mlp.up_proj") == .q8_0)
    #expect(try Pipeline([some]).plan(for: model).filter { $0.scheme == "Q8_0" }.count == 9)
    some.layers = LayerSelector(include: ["nothing"])
    #expect(throws: PipelineError.self) { try Pipeline([some]).plan(for: model) }
  }

  @Test func recipesSpellTypes() throws {
    func recipe(_ type: String) throws -> Recipe {
      try Recipe(yaml: "passes:\n  - ggml: { type: \(type) }\n", file: "r.yaml", passes: .standard)
    }
    for name in ["q4_k_m", "Q4_K_M", "q4_k", "mxfp4", "iq4_nl"] {
      let pass = try #require(try recipe(name).passes.first as? BlockQuantization)
      #expect(pass.type.name == name.lowercased())
      #expect(try JSONDecoder().decode(BlockQuantization.self, from: JSONEncoder().encode(pass)).type == pass.type)
    }
    #expect(throws: (any Error).self) { try recipe("q4_k_x") }
  }
}
