import CompressKit
import Foundation
import TestSupport
import Testing

private actor Parts: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

private func sweep(
  _ pass: any Pass, on model: Model, strict: Bool = false, sequences: [[Int32]] = TinyModel.sequences(6, length: 40)
) async throws -> (parts: [any ModelPart], report: Report) {
  let sink = Parts()
  let report = try await Pipeline([pass]).run(on: model, options: SweepOptions(calibration: sequences, strict: strict), into: sink)
  return (await sink.parts, report)
}

private func scheme(_ part: any ModelPart, _ name: LinearName) -> QuantizationScheme? { (part[name].weight as? QuantizedMatrix)?.scheme }

struct QuantizationPassTests {
  @Test func everyLinearOfTheBlocksIsQuantized() async throws {
    for pass in [GPTQ.gptq(bits: 3, groupSize: 16), RoundToNearest.rtn(bits: 3, groupSize: 16)] as [any Pass] {
      let (blocks, report) = try await sweep(pass, on: try TinyModel.model(dtype: .float16), strict: true)
      #expect(blocks.count == 4)
      for block in blocks[1...2] {
        for name in block.linears.keys {
          #expect(scheme(block, name) == QuantizationScheme(bits: 3, granularity: .group(16), symmetric: true, scaleType: .float16))
        }
      }
      for end in [blocks[0], blocks[3]] { #expect(end.linears.values.allSatisfy { $0.weight is StoredWeight }) }
      #expect(report.layers.count == 14)
      #expect(report.fallbacks.isEmpty)
      #expect(report.layers.allSatisfy { $0.scheme == "int3 g16" && $0.metrics["bits_per_weight"] == 4 })
    }
  }

  /// What outputs are worth to the predictions brings these nearer to the original's: not in every model of so few weights, but on the whole.
  @Test func gradientsOfTheOutputsCount() async throws {
    var pass = GPTQ.gptq(bits: 2, groupSize: 16)
    (pass.refine, pass.order) = (2, .group)
    pass.layers = LayerSelector(include: ["*", "lm_head"])
    let sequences = TinyModel.sequences(30, length: 40).suffix(20).map { $0 }
    var ratios: [Double] = []
    for theta in ["10000.0", "500.0", "100.0", "20.0", "5.0"] {
      let model = try TinyModel.model(TinyModel.config.replacing("10000.0", with: theta))
      func divergence(_ parts: [any ModelPart]) throws -> Double {
        let swept = Model(description: model.description) { place in parts.first { $0.place == place }! }
        return try Evaluator(window: 40).evaluate(swept, against: model, on: TinyModel.sequences(10, length: 40).flatMap { $0 })
          .divergence!.mean
      }
      pass.hessian = .input
      let inputs = try await sweep(pass, on: model, sequences: sequences)
      pass.hessian = .output
      let outputs = try await sweep(pass, on: model, strict: true, sequences: sequences)
      ratios.append(try divergence(outputs.parts) / divergence(inputs.parts))
      let shares = outputs.report.layers.filter { $0.layer != "lm_head" }.map { $0.metrics["two_sided_loss_share"] }
      #expect(shares.count == 14 && shares.allSatisfy { $0.map { $0 <= 1 } == true } && shares.contains { $0! < 0.95 })
      #expect(outputs.report.remarks.contains { $0.contains("lm_head is quantized by its inputs alone") })
    }
    #expect(ratios.reduce(1, *) < 1, "\(ratios)")
  }

  @Test func predictionsWithoutGradientsAreRefused() throws {
    var pass = GPTQ.gptq(bits: 4, groupSize: 16)
    pass.hessian = .output
    #expect(throws: PipelineError.self) { _ = try Pipeline([pass]).plan(for: try Families.model("bert")) }
    for options in ["numbers: fp8", "symmetric: false, zero_point: real", "output_damping: 0"] {
      #expect(throws: (any Error).self, "\(options)") {
        try Recipe(yaml: "passes: [ { gptq: { hessian: output, \(options) } } ]", file: "test", passes: .standard)
      }
    }
  }

  @Test func overridesChangeWhatTheySelectAndTheLastOneWins() async throws {
    var pass = RoundToNearest.rtn(bits: 4, groupSize: 8)
    pass.layers = LayerSelector(include: ["*", "lm_head"], exclude: ["o_proj"])
    pass.overrides = [
      QuantizationOverride(layers: LayerSelector(include: ["down_proj"]), bits: 8, groupSize: .channel),
      QuantizationOverride(layers: LayerSelector(include: ["model.layers.1.*"]), symmetric: false),
      QuantizationOverride(layers: LayerSelector(include: ["model.layers.1.mlp.down_proj"]), bits: 2),
    ]
    let (blocks, _) = try await sweep(pass, on: try TinyModel.model(dtype: .bfloat16))
    func expected(_ bits: Int, _ granularity: QuantizationScheme.Granularity, _ symmetric: Bool) -> QuantizationScheme {
      QuantizationScheme(bits: bits, granularity: granularity, symmetric: symmetric)
    }
    #expect(scheme(blocks[1], "mlp.up_proj") == expected(4, .group(8), true))
    #expect(scheme(blocks[1], "mlp.down_proj") == expected(8, .channel, true))
    #expect(scheme(blocks[2], "mlp.up_proj") == expected(4, .group(8), false))
    #expect(scheme(blocks[2], "mlp.down_proj") == expected(2, .channel, false))
    #expect(scheme(blocks[1], "self_attn.o_proj") == nil)
    #expect(scheme(blocks[3], "lm_head") == expected(4, .group(8), true))
    #expect(scheme(blocks[0], "embed_tokens") == nil)
  }

  @Test func optionsThatCannotBeAreRefused() {
    func option(_ change: (inout GPTQ) -> Void) -> String? {
      var pass = GPTQ()
      change(&pass)
      do throws(InvalidOption) { try pass.validate() } catch { return error.option }
      return nil
    }
    #expect(option { _ in } == nil)
    for bits in [2, 3, 4, 5, 6, 8] { #expect(option { $0.bits = bits } == nil) }
    for bits in [-1, 0, 1, 7, 9, 16] { #expect(option { $0.bits = bits } == "bits") }
    #expect(option { $0.groupSize = 0 } == "group_size")
    #expect(option { $0.groupSize = .columns(-8) } == "group_size")
    #expect(option { $0.groupSize = .channel } == nil)
    for damping in [-0.01, 10, .nan] { #expect(option { $0.damping = damping } == "damping") }
    #expect(option { $0.damping = 0 } == nil)
    #expect(option { $0.blockSize = 0 } == "block_size")
    #expect(option { $0.refine = -1 } == "refine")
    #expect(option { ($0.refine, $0.symmetric) = (2, false) } == nil)
    #expect(option { ($0.refine, $0.numbers) = (2, .nvfp4) } == "refine")
    #expect(option { ($0.refine, $0.overrides) = (2, [.init(layers: LayerSelector(), numbers: .fp8)]) } == "refine")
    #expect(option { ($0.refine, $0.symmetric, $0.zeroPoint) = (2, false, .real) } == "refine")
    #expect(option { $0.overrides = [.init(layers: LayerSelector()), .init(layers: LayerSelector(), bits: 7)] } == "overrides[1].bits")
    #expect(option { $0.overrides = [.init(layers: LayerSelector(), groupSize: 0)] } == "overrides[0].group_size")
    var rounding = RoundToNearest()
    rounding.bits = 7
    #expect(throws: InvalidOption.self) { try rounding.validate() }
  }

  @Test(arguments: [DType.bfloat16, .float16, .float32]) func plansCountWhatIsStored(_ type: DType) throws {
    let model = try TinyModel.model(TinyModel.config, dtype: type)
    let pass = RoundToNearest.rtn(bits: 4, groupSize: 16, symmetric: false)
    for linear in try Pipeline([pass]).plan(for: model) where !linear.isEnd {
      let weight = Matrix.random(rows: linear.rows, columns: linear.columns, key: linear.name)
      let scheme = QuantizationScheme(bits: 4, granularity: .group(16), symmetric: false, scaleType: type)
      #expect(linear.storedBits == RoundToNearest.quantize(weight, scheme: scheme).storedBits)
      #expect(linear.sourceBits == linear.rows * linear.columns * type.bitCount)
    }
  }

  @Test func groupsThatDoNotDivideAreRefused() async throws {
    let linear = PlannedLinear(name: "model.layers.0.mlp.up_proj", rows: 8, columns: 32, isEnd: false, scheme: "bf16", storedBits: 4096)
    let pass = GPTQ.gptq(bits: 4, groupSize: 24)
    do throws(InvalidOption) {
      _ = try pass.plan(linear)
      Issue.record("planned")
    } catch {
      #expect(error.option == "group_size")
      #expect(error.reason.contains("24") && error.reason.contains("32") && error.reason.contains(linear.name))
    }
    for pass in [pass, RoundToNearest.rtn(bits: 4, groupSize: 24)] as [any Pass] {
      let error = await #expect(throws: PipelineError.self) { try await sweep(pass, on: try TinyModel.model()) }
      #expect((error?.cause as? InvalidOption)?.option == "group_size")
      #expect(error?.block == "model.layers.0")
    }
  }

  @Test func plansSayWhatWillBeStored() throws {
    let linear = PlannedLinear(name: "model.layers.0.mlp.up_proj", rows: 8, columns: 32, isEnd: false, scheme: "bf16", storedBits: 4096)
    let planned = try GPTQ.gptq(bits: 3, groupSize: 16, symmetric: false).plan(linear)
    #expect(planned.scheme == "int3 g16 asym")
    #expect(planned.storedBits == 8 * 32 * 3 + 8 * 2 * (16 + 3))
    #expect(try RoundToNearest.rtn(bits: 8, groupSize: .channel).plan(linear).scheme == "int8 channel")
    let head = PlannedLinear(name: "lm_head", rows: 8, columns: 32, isEnd: true, scheme: "bf16", storedBits: 4096)
    #expect(try GPTQ.gptq().plan(head) == head)
  }

  @Test func tooFewTokensRaiseTheDampingAndSaySo() async throws {
    var pass = GPTQ.gptq(bits: 4, groupSize: 16)
    pass.damping = 0
    let few = TinyModel.sequences(1, length: 5)
    let (blocks, report) = try await sweep(pass, on: try TinyModel.model(), sequences: few)
    #expect(blocks[1].linears.values.allSatisfy { $0.weight is QuantizedMatrix })
    let record = try #require(report.layers.first { $0.layer == "model.layers.0.mlp.up_proj" })
    #expect(record.fallback?.contains("damping raised from 0.0 to") == true)
    #expect(try #require(record.metrics["damping"]) > 0)
    #expect(record.metrics["calibration_tokens"] == 5)
    let error = await #expect(throws: PipelineError.self) { try await sweep(pass, on: try TinyModel.model(), strict: true, sequences: few) }
    #expect(error?.cause is UnwantedFallback)
  }

  /// A norm so large that the products of its outputs overflow: no damping helps.
  private func exploding() throws -> Model {
    var checkpoint = try EditableCheckpoint(TinyModel.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":1"))
    checkpoint["model.layers.0.post_attention_layernorm.weight"] = Tensor([Float](repeating: 1e20, count: 32), shape: [32], dtype: .float32)
    // So small that what the layer itself computes stays finite.
    let up = "model.layers.0.mlp.up_proj.weight"
    let small = (0..<64 * 32).map { TinyModel.element(up, $0) * 1e-19 }
    checkpoint[up] = Tensor(small, shape: [64, 32], dtype: .float32)
    return try checkpoint.model()
  }

  @Test func withoutAFactorItRoundsAndSaysSo() async throws {
    let pass = GPTQ.gptq(bits: 4, groupSize: 16)
    let model = try exploding()
    let (blocks, report) = try await sweep(pass, on: model)
    for name in ["mlp.gate_proj", "mlp.up_proj"] as [LinearName] {
      let record = try #require(report.layers.first { $0.layer == "model.layers.0.\(name)" })
      #expect(record.fallback?.contains("not positive definite") == true)
      #expect(record.metrics["relative_weight_error"] != nil)
      let scheme = QuantizationScheme(bits: 4, granularity: .group(16), symmetric: true, scaleType: .float32)
      let rounded = RoundToNearest.quantize(try model.block(0)[name].weight.dense(), scheme: scheme)
      #expect(blocks[1][name].weight as? QuantizedMatrix == rounded)
    }
    #expect(report.layers.first { $0.layer.hasSuffix("q_proj") }?.fallback == nil)
    let error = await #expect(throws: PipelineError.self) { try await sweep(pass, on: model, strict: true) }
    #expect((error?.cause as? UnwantedFallback)?.layer == "model.layers.0.mlp.gate_proj")
  }

  @Test func anEmbeddingIsRoundedAndSaysSo() async throws {
    var pass = GPTQ.gptq(bits: 4, groupSize: 16)
    pass.layers = LayerSelector(include: ["embed_tokens", "lm_head"])
    let (blocks, report) = try await sweep(pass, on: try TinyModel.model())
    #expect(blocks[0]["embed_tokens"].weight is QuantizedMatrix)
    #expect(blocks[3]["lm_head"].weight is QuantizedMatrix)
    #expect(report.fallbacks.map(\.layer) == ["model.embed_tokens"])
  }

  @Test func activationsWeighTheSearch() async throws {
    var pass = RoundToNearest.rtn(bits: 2, groupSize: 16)
    #expect(!pass.usesCalibration)
    pass.importance = .activations
    #expect(pass.usesCalibration)
    let model = try TinyModel.model()
    let (weighted, _) = try await sweep(pass, on: model)
    pass.importance = .none
    let (plain, _) = try await sweep(pass, on: model)
    #expect(weighted[1]["mlp.down_proj"].weight as? QuantizedMatrix != plain[1]["mlp.down_proj"].weight as? QuantizedMatrix)
  }

  @Test func optionsReadFromTheirSpelling() throws {
    let decoded = try JSONDecoder().decode([GroupSize].self, from: Data("[128, \"channel\", -1]".utf8))
    #expect(decoded == [128, .channel, .channel])
    #expect(try String(decoding: JSONEncoder().encode(decoded), as: UTF8.self) == "[128,\"channel\",\"channel\"]")
    #expect(throws: DecodingError.self) { try JSONDecoder().decode([GroupSize].self, from: Data("[\"row\"]".utf8)) }
    var pass = GPTQ()
    pass.overrides = [.init(layers: LayerSelector(include: ["a"]), bits: 2, groupSize: .channel, symmetric: false)]
    let again = try JSONDecoder().decode(GPTQ.self, from: JSONEncoder().encode(pass))
    #expect(again.overrides == pass.overrides && again.order == pass.order && again.damping == pass.damping)
  }
}
