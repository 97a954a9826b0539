import CompressKit
import TestSupport
import Testing

struct TuneTests {
  private static let rounding = "{ rtn: { bits: 2, group_size: 16 } }"

  /// On every family, whatever its mixers: what is kept out gets nearer, and no block gets worse.
  @Test(arguments: [
    "llama-yarn", "gemma2", "gpt-neox", "gpt-oss", "qwen3-moe", "qwen3-next", "deepseek-v3", "falcon-h1", "lfm2", "nemotron-h",
  ])
  func blocksComeNearerToTheOriginal(_ family: String) async throws {
    let swept = try await Swept(
      "\(Self.rounding), { tune: { epochs: 4, batch: 2, rate: 0.02, scale_rate: 0.003, reach: 0.4 } }", try Families.model(family))
    let records = swept.report.layers.filter { $0.pass == "tune" }
    #expect(records.count == swept.model.description.blocks.count)
    for record in records { #expect(record.metrics["loss_after"]! <= record.metrics["loss_before"]!, "\(record)") }
    #expect(records.contains { $0.metrics["loss_after"]! < 0.97 * $0.metrics["loss_before"]! }, "\(records)")
  }

  @Test func predictionsComeNearerToo() async throws {
    let model = try TinyModel.model()
    let rounded = try await Swept(Self.rounding, model)
    let tuned = try await Swept(
      "\(Self.rounding), { tune: { epochs: 8, batch: 2, rate: 0.02, scale_rate: 0.003, reach: 0.4, moves: [weights, scales, norms] } }",
      model)
    let (before, after) = (try rounded.divergence(from: model), try tuned.divergence(from: model))
    #expect(after < 0.9 * before, "\(after) against \(before)")
  }

  @Test func onlyWhatIsNamedMoves() async throws {
    let model = try TinyModel.model()
    let before = try await Swept(Self.rounding, model).blocks()
    func after(_ options: String) async throws -> [Block] {
      try await Swept("\(Self.rounding), { tune: { epochs: 3, batch: 2, \(options) } }", model).blocks()
    }
    func same(_ a: Block, _ b: Block, _ part: (QuantizedMatrix) -> [Float]) -> Bool {
      a.linears.allSatisfy { name, linear in part(linear.weight as! QuantizedMatrix) == part(b[name].weight as! QuantizedMatrix) }
    }
    let scales = try await after("moves: [scales]")
    #expect(scales.indices.allSatisfy { same(before[$0], scales[$0]) { $0.codes.map(Float.init) } && before[$0].norms == scales[$0].norms })
    #expect(!scales.indices.allSatisfy { same(before[$0], scales[$0]) { $0.scales.elements } })
    let rounding = try await after("moves: [rounding], rate: 0.1")
    #expect(rounding.indices.allSatisfy { same(before[$0], rounding[$0]) { $0.scales.elements } })
    for (old, new) in zip(before, rounding) {
      for (name, linear) in new.linears {
        let codes = zip((linear.weight as! QuantizedMatrix).codes, (old[name].weight as! QuantizedMatrix).codes)
        #expect(codes.allSatisfy { abs(Int($0) - Int($1)) <= 1 })
      }
    }
    let one = try await after("layers: { include: ['*.down_proj'] }, rate: 0.1")
    #expect(
      one.indices.allSatisfy {
        (one[$0]["mlp.up_proj"].weight as! QuantizedMatrix) == (before[$0]["mlp.up_proj"].weight as! QuantizedMatrix)
      })
  }

  @Test(arguments: [
    "numbers: nvfp4", "numbers: mxfp4", "numbers: fp8", "bits: 3, group_size: 16, symmetric: false",
    "bits: 2, group_size: 16, symmetric: false, zero_point: real",
  ])
  func everyGridIsTuned(_ options: String) async throws {
    let swept = try await Swept(
      "{ rtn: { \(options) } }, { tune: { epochs: 3, batch: 2, rate: 0.02, scale_rate: 0.003, reach: 0.4, moves: [weights, scales, zero_points] } }",
      try TinyModel.model())
    let records = swept.report.layers.filter { $0.pass == "tune" }
    for record in records { #expect(record.metrics["loss_after"]! <= record.metrics["loss_before"]!) }
    #expect(records.contains { $0.metrics["loss_after"]! < $0.metrics["loss_before"]! })
    // What is written is what was tuned: its loss is computed on weights as they are stored.
    for block in try swept.blocks() { for linear in block.linears.values { #expect(linear.weight is QuantizedMatrix) } }
  }

  @Test func threadsChangeNothing() async throws {
    func swept() async throws -> [Block] {
      try await Swept("\(Self.rounding), { tune: { epochs: 2, batch: 3 } }", try TinyModel.model()).blocks()
    }
    let one = try await Parallel.$width.withValue(1) { try await swept() }
    let three = try await Parallel.$width.withValue(3) { try await swept() }
    for (a, b) in zip(one, three) {
      for name in a.linears.keys { #expect(a[name].weight as! QuantizedMatrix == b[name].weight as! QuantizedMatrix) }
    }
  }

  /// Absurd rates lead nowhere, and cost nothing.
  @Test(arguments: [
    "tune: { epochs: 3, moves: [weights, scales, norms], rate: 0.9, scale_rate: 0.9, norm_rate: 0.9 }",
    "distill: { epochs: 3, moves: [weights, scales, norms, embeddings], rate: 0.9, scale_rate: 0.9, code_rate: 0.9, clip: 1000, validate_every: 1 }",
  ])
  func whatDivergesKeepsWhatWasBest(_ pass: String) async throws {
    let model = try TinyModel.model()
    let rounded = try await Swept(Self.rounding, model)
    let swept = try await Swept("\(Self.rounding), { \(pass) }", model)
    #expect(try swept.divergence(from: model) < 1.5 * rounded.divergence(from: model))
  }

  /// What cannot be tuned is a fallback, and scales that cannot move are told of.
  @Test func whatCannotMoveIsReported() async throws {
    let blocks = try await Swept("{ ggml: { type: q8_0 } }, { tune: { epochs: 1 } }", try TinyModel.model())
    #expect(blocks.report.fallbacks.count == 14, "\(blocks.report.fallbacks)")
    let powers = try await Swept("{ rtn: { numbers: mxfp4 } }, { tune: { epochs: 1 } }", try TinyModel.model())
    #expect(powers.report.remarks.contains { $0.contains("powers of two") } && powers.report.fallbacks.isEmpty)
  }

  @Test func aBlockWithNothingToTuneIsLeftAndSaidSo() async throws {
    let swept = try await Swept("{ tune: { epochs: 1 } }", try TinyModel.model())
    #expect(swept.report.remarks.contains { $0.hasPrefix("tune: some blocks hold nothing") }, "\(swept.report.remarks)")
  }

  @Test(arguments: [
    "moves: []", "moves: [rounding, weights]", "epochs: 0", "batch: 0", "rate: 0", "scale_rate: 1", "reach: 0.5", "kept_out: 0",
    "kept_out: 0.6",
  ])
  func badOptionsAreRefused(_ options: String) throws {
    #expect(throws: (any Error).self) { try Recipe(yaml: "passes: [ { tune: { \(options) } } ]", file: "test", passes: .standard) }
  }
}
