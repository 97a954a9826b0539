import CompressKit
import Foundation
import TestSupport
import Testing

/// `group_size: auto`: what it is for every layer, that the report says it, and that formats can describe the result.
@Suite struct GroupSizeTests {
  /// Columns of 96 that 32 divides, of 256 that 128 divides, and, in the output projections, of 40 that nothing usual divides.
  private static let config = """
    {"model_type":"llama","vocab_size":64,"hidden_size":96,"intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":1,
     "head_dim":40,"num_key_value_heads":1,"rms_norm_eps":1e-05,"max_position_embeddings":64,"tie_word_embeddings":false,"bos_token_id":1}
    """

  private func plan(_ pass: String, _ config: String = config, format: String = "compressed-tensors") throws -> Compressor.Plan {
    let yaml = "calibration: { tokens: t.npy, sequences: 2, length: 32 }\npasses: [ \(pass) ]\noutput: { format: \(format) }"
    return try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "t.npy")
      try TinyModel.write(tokens: TinyModel.sequences(2, length: 32).flatMap { $0 }, to: file)
      var compressor = Compressor(recipe: try Recipe(yaml: yaml, file: "r.yaml", passes: .standard))
      compressor.bases = [directory]
      return try compressor.plan(try TinyModel.checkpoint(config, dtype: .bfloat16))
    }
  }

  private func schemes(_ plan: Compressor.Plan) -> [String: String] {
    Dictionary(uniqueKeysWithValues: plan.linears.map { ($0.name, $0.scheme) })
  }

  @Test(arguments: ["rtn", "gptq", "hqq"]) func everyLayerGetsTheLargestThatDividesIt(_ pass: String) throws {
    let plan = try plan("{ \(pass): { bits: 4, group_size: auto, zero_point: integer } }")
    let suffix = pass == "hqq" ? " asym" : ""
    for block in ["model.layers.0.", "model.layers.1."] {
      let schemes = schemes(plan)
      for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"] {
        #expect(schemes[block + name] == "int4 g32" + suffix, "\(name)")
      }
      #expect(schemes[block + "mlp.down_proj"] == "int4 g128" + suffix)
      #expect(schemes[block + "self_attn.o_proj"] == "int4 channel" + suffix)
    }
    let remark =
      "\(pass): group_size auto is 128 for 2 linears, 32 for 10 linears, channel for 2 linears, whose columns none of 128, 64, 32 divides"
    #expect(plan.remarks.filter { $0.contains("group_size auto") } == [remark])
  }

  @Test func overridesMayHaveItAndMayTakeItBack() throws {
    let plan = try plan(
      "{ rtn: { group_size: auto, overrides: [{ layers: down_proj, group_size: 16 }, { layers: o_proj, bits: 8 }] } }")
    let schemes = schemes(plan)
    #expect(schemes["model.layers.0.mlp.down_proj"] == "int4 g16" && schemes["model.layers.1.self_attn.o_proj"] == "int8 channel")
    #expect(plan.remarks.contains { $0.contains("32 for 10 linears, channel for 2 linears") && !$0.contains("128 for") })
  }

  @Test func allocationHasItByDefault() throws {
    let plan = try plan("{ allocate: { target: 5bpw, sensitivity: layer, layers: { exclude: [o_proj] } } }")
    let down = try #require(plan.linears.first { $0.name == "model.layers.0.mlp.down_proj" })
    #expect(down.candidates.map { "\($0)" } == [3, 4, 5, 6, 8].map { "int\($0) g128" })
    #expect(plan.remarks.contains("allocate: group_size auto is 128 for 2 linears, 32 for 10 linears"))
  }

  @Test func aSizeThatDoesNotDivideIsRefusedWithOneThatDoes() throws {
    func refusal(_ pass: String) throws -> String {
      "\(try #require(#expect(throws: (any Error).self) { _ = try plan(pass) }))"
    }
    #expect(
      try refusal("{ rtn: { group_size: 64 } }").contains("64 does not divide the 96 columns of model.layers.0.self_attn.q_proj; 32 does"))
    #expect(
      try refusal("{ rtn: { group_size: 64, layers: o_proj } }").contains(
        "40 columns of model.layers.0.self_attn.o_proj; none of 128, 64, 32 does"))
    #expect(try refusal("{ rtn: { numbers: nvfp4, group_size: auto } }").contains("leave group_size out"))
    #expect(try refusal("{ rtn: { group_size: automatic } }").contains("auto, channel, tensor"))
  }

  /// Where 128 divides everything, `auto` is another spelling of it.
  @Test(arguments: ["rtn: { bits: 4", "gptq: { bits: 3, scales: full_range", "rtn: { bits: 8, symmetric: false"])
  func where128DividesTheWeightsAreThose(_ pass: String) async throws {
    let config = Self.config.replacing("\"hidden_size\":96", with: "\"hidden_size\":128").replacing(
      "\"head_dim\":40", with: "\"head_dim\":128")
    var stored: [[String: Data]] = []
    for size in ["128", "auto"] {
      let recipe = try Recipe(yaml: "passes: [{ \(pass), group_size: \(size) } }]", file: "r.yaml", passes: .standard)
      let shelf = Shelf()
      _ = try await Pipeline(recipe.passes).run(
        on: try TinyModel.model(config, dtype: .bfloat16), options: SweepOptions(calibration: TinyModel.sequences(6, length: 32)),
        into: shelf)
      var tensors: [String: Data] = [:]
      for part in await shelf.parts {
        for tensor in try CompressedTensorsFormat().encode(part) { tensors[tensor.name] = Data(tensor.tensor.bytes) }
      }
      stored.append(tensors)
    }
    #expect(stored[0].count > 20 && stored[0] == stored[1])
  }

  /// What is written opens again with the sizes that every layer got.
  @Test(arguments: ["compressed-tensors", "gptq", "mlx"]) func formatsDescribeUnlikeSizes(_ format: String) async throws {
    let zeros = format == "mlx" ? "symmetric: false, zero_point: real" : "symmetric: true"
    let config = Self.config.replacing("\"head_dim\":40", with: "\"head_dim\":64")
    try await Places.withTemporaryDirectory { directory in
      let yaml = "passes: [{ rtn: { group_size: auto, \(zeros) } }]\noutput: { format: \(format) }"
      try await TinyModel.write(to: directory.appending(path: "model"), config)
      let output = directory.appending(path: "out")
      let report = try await Compressor(recipe: try Recipe(yaml: yaml, file: "r.yaml", passes: .standard)).run(
        try Checkpoint(directory.appending(path: "model")), to: output)
      #expect(report.remarks.contains("rtn: group_size auto is 128 for 2 linears, 64 for 2 linears, 32 for 10 linears"))
      let block = try Model(try Checkpoint(output)).outline(.decoder(index: 1))
      for (name, size) in [("self_attn.q_proj", 32), ("self_attn.o_proj", 64), ("mlp.up_proj", 32), ("mlp.down_proj", 128)] {
        let weight = try #require(block[LinearName(rawValue: name)].weight as? QuantizedMatrix)
        #expect(weight.scheme.granularity == .group(size), "\(name)")
      }
    }
  }

  @Test func awqHasRoomForOneSizeOnlyAndNamesIt() throws {
    let error = #expect(throws: (any Error).self) {
      _ = try plan("{ rtn: { group_size: auto, layers: { exclude: [o_proj] } } }", format: "awq")
    }
    #expect("\(try #require(error))".contains("all linears need the same group size, and this one has 128, others 32; one that divides"))
  }
}
