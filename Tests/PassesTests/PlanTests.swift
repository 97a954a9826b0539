import CompressKit
import TestSupport
import Testing

@Suite struct PlanTests {
  private func plan(_ passes: [any Pass], _ config: String = TinyModel.config) throws -> [String: PlannedLinear] {
    let linears = try Pipeline(passes).plan(for: TinyModel.model(config, dtype: .bfloat16))
    return Dictionary(uniqueKeysWithValues: linears.map { ($0.name, $0) })
  }

  @Test func listsEveryLinearInTheOrderOfTheSweep() throws {
    let linears = try Pipeline([]).plan(for: TinyModel.model(dtype: .bfloat16))
    let block =
      ["q_proj", "k_proj", "v_proj", "o_proj"].map { "self_attn." + $0 } + ["gate_proj", "up_proj", "down_proj"].map { "mlp." + $0 }
    let names = ["model.embed_tokens"] + (0..<2).flatMap { index in block.map { "model.layers.\(index).\($0)" } } + ["lm_head"]
    #expect(linears.map(\.name) == names)
    #expect(linears.map(\.isEnd) == names.map { !$0.contains("layers") })
    #expect(linears.allSatisfy { $0.scheme == "BF16" && $0.storedBits == $0.rows * $0.columns * 16 })
    #expect(linears[2].rows == 16 && linears[2].columns == 32)
  }

  @Test func bitsFollowSelectors() throws {
    var rtn = RoundToNearest.rtn(groupSize: 32)
    rtn.layers = LayerSelector(include: ["*", "lm_head"], exclude: ["q_proj"])
    rtn.overrides = [
      QuantizationOverride(layers: LayerSelector(include: ["layers.1.*"]), bits: 8),
      QuantizationOverride(layers: LayerSelector(include: ["down_proj"]), groupSize: .channel, symmetric: false),
    ]
    let plan = try plan([rtn])
    // Codes, and per group a scale of 16 bits and, without symmetry, a zero point.
    #expect(plan["model.layers.0.mlp.up_proj"]!.storedBits == 64 * 32 * 4 + 64 * 16)
    #expect(plan["model.layers.0.mlp.up_proj"]!.scheme == "int4 g32")
    #expect(plan["model.layers.1.mlp.up_proj"]!.storedBits == 64 * 32 * 8 + 64 * 16)
    #expect(plan["model.layers.0.mlp.down_proj"]!.storedBits == 32 * 64 * 4 + 32 * (16 + 4))
    #expect(plan["model.layers.1.mlp.down_proj"]!.storedBits == 32 * 64 * 8 + 32 * (16 + 8))
    #expect(plan["model.layers.1.mlp.down_proj"]!.scheme == "int8 channel asym")
    #expect(plan["lm_head"]!.storedBits == 64 * 32 * 4 + 64 * 16)
    for name in ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.embed_tokens"] {
      #expect(plan[name]!.scheme == "BF16", "\(name)")
    }
  }

  @Test func thePlanIsWhatTheSweepMakes() async throws {
    var gptq = GPTQ.gptq(bits: 3, groupSize: 16, symmetric: false)
    gptq.layers = LayerSelector(include: ["*", "lm_head"], exclude: ["o_proj"])
    let model = try TinyModel.model(dtype: .bfloat16)
    let plan = try Pipeline([gptq]).plan(for: model)
    let shelf = Shelf()
    let report = try await Pipeline([gptq]).run(
      on: model, options: SweepOptions(calibration: TinyModel.sequences(4, length: 16)), into: shelf)
    var swept: [String: Linear] = [:]
    for block in await shelf.parts { for (name, linear) in block.linears { swept[block.fullName(of: name)] = linear } }
    for linear in plan {
      #expect(swept[linear.name]?.weight.storedBits == linear.storedBits, "\(linear.name)")
      let record = report.layers.first { $0.layer == linear.name }
      #expect(record?.scheme == (linear.scheme == "BF16" ? nil : linear.scheme), "\(linear.name)")
      if let bits = record?.metrics["bits_per_weight"] {
        #expect(abs(bits - Double(linear.storedBits) / Double(linear.rows * linear.columns)) < 1e-12)
      }
    }
  }

  @Test func aLaterPassPlansOnTopOfAnEarlierOne() throws {
    var head = RoundToNearest.rtn(bits: 8, groupSize: 16)
    head.layers = LayerSelector(include: ["lm_head"])
    let plan = try plan([.gptq(bits: 3, groupSize: 32), head])
    #expect(plan["lm_head"]!.scheme == "int8 g16")
    #expect(plan["model.layers.0.mlp.up_proj"]!.scheme == "int3 g32")
  }

  @Test(arguments: [48, 128, 33])
  func refusesGroupsThatDoNotDivide(size: Int) throws {
    let error = #expect(throws: PipelineError.self) { _ = try plan([.gptq(groupSize: .columns(size))]) }
    let cause = try #require(error?.cause as? InvalidOption)
    #expect(error?.pass == "gptq")
    #expect(cause.option == "group_size")
    #expect(cause.reason.contains("\(size) does not divide the 32 columns of model.layers.0.self_attn.q_proj"))
  }

  @Test func aGroupOnlySomeColumnsFitNamesTheOneThatDoesNot() throws {
    let error = #expect(throws: PipelineError.self) { _ = try plan([.rtn(groupSize: 64)]) }
    #expect(error.map { "\($0)" }?.contains("q_proj") == true)
    var rtn = RoundToNearest.rtn(groupSize: 64)
    rtn.layers = LayerSelector(include: ["down_proj"])
    #expect(try plan([rtn])["model.layers.0.mlp.down_proj"]!.scheme == "int4 g64")
  }

  @Test func aSelectorThatMatchesNothingIsAnErrorOfItsPass() throws {
    var rtn = RoundToNearest.rtn(groupSize: 32)
    rtn.overrides = [QuantizationOverride(layers: LayerSelector(include: ["down_porj"]), bits: 8)]
    let error = #expect(throws: PipelineError.self) { _ = try plan([Scaling(), rtn]) }
    #expect(error?.pass == "rtn")
    #expect((error?.cause as? InvalidOption)?.reason.contains("did you mean \"down_proj\"?") == true)
  }

  @Test func aPassOfOnesOwnHasItsSelectorsChecked() throws {
    var scaling = Scaling()
    scaling.layers = LayerSelector(include: ["nothing_like_it"])
    let error = #expect(throws: PipelineError.self) { _ = try plan([scaling]) }
    #expect(error?.pass == "scaling" && error?.cause is InvalidOption)
  }
}
