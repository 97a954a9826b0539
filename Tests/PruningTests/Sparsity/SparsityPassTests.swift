import CompressKit
import Synchronization
import TestSupport
import Testing

/// The passes on a model of two blocks.
@Suite struct SparsityPassTests {
  /// A model whose widths are multiples of the default group size.
  static let wide = """
    {"model_type":"llama","vocab_size":64,"hidden_size":128,"intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":2,"rms_norm_eps":1e-05,"max_position_embeddings":64,"tie_word_embeddings":false}
    """

  private func pass<P: Pass>(_: P.Type, _ options: String) throws -> P {
    let recipe = try Recipe(yaml: "passes: [\(P.name): \(options)]", file: "r.yaml", passes: .standard)
    return try #require(recipe.passes[0] as? P)
  }

  private func linears(_ blocks: [any ModelPart]) -> [(name: String, weight: any Weight)] {
    blocks.decoders.flatMap { block in
      block.inputGroups.flatMap(\.linears).map { (block.fullName(of: $0), block[$0].weight) }
    }
  }

  private func checkGroups(_ weight: Matrix, kept: Int, group: Int, _ name: String) {
    for start in stride(from: 0, to: weight.elements.count, by: group) {
      #expect(weight.elements[start..<start + group].count { $0 != 0 } <= kept, "\(name)")
    }
  }

  static let options = ["sparsity: 0.5", "pattern: 2:4", "pattern: 4:8", "sparsity: 0.3"].flatMap {
    ["\($0), refit: true", "\($0), refit: false"]
  }

  @Test(arguments: ["magnitude", "wanda", "sparsegpt"], options)
  func everyPassReachesItsSparsity(name: String, options: String) async throws {
    let yaml = "passes: [\(name): { \(options), layers: { exclude: ['layers.1.*'] } }]"
    let (blocks, report) = try await Blocks.swept(try Recipe(yaml: yaml, file: "r.yaml", passes: .standard).passes)
    let share = options.contains("0.3") ? 0.3 : 0.5
    #expect(report.layers.count == 7 && report.fallbacks.isEmpty)
    for (name, weight) in linears(blocks) {
      guard name.contains("layers.0.") else {
        #expect(weight is StoredWeight)
        continue
      }
      let dense = weight.dense()
      // A share is of whole weights of a row.
      #expect(abs(dense.zeroShare - share) < 1 / 32.0, "\(name)")
      if options.contains("2:4") { checkGroups(dense, kept: 2, group: 4, name) }
      if options.contains("4:8") { checkGroups(dense, kept: 4, group: 8, name) }
      let record = try #require(report.layers.first { $0.layer == name })
      #expect(record.metrics["sparsity"] == dense.zeroShare)
    }
  }

  @Test func betterMethodsLoseLess() async throws {
    func loss(_ yaml: String) async throws -> Double {
      let passes = try Recipe(yaml: "passes: [\(yaml)]", file: "r.yaml", passes: .standard).passes
      let report = try await Blocks.swept(passes).1
      // The first group of the first block sees the same inputs whatever the method.
      let values = report.layers.filter { $0.layer.contains("layers.0.self_attn.q_proj") }.compactMap { $0.metrics["relative_layer_loss"] }
      return try #require(values.first)
    }
    for pattern in ["sparsity: 0.5", "pattern: 2:4"] {
      let plain = try await loss("sparsegpt: { \(pattern), refit: false }")
      let refitted = try await loss("sparsegpt: { \(pattern) }")
      let wanda = try await loss("wanda: { \(pattern), refit: true }")
      #expect(refitted < plain && refitted < wanda, "\(pattern): \(plain), refit \(refitted), Wanda with refit \(wanda)")
    }
  }

  @Test func wandaTakesTheLowestProductsOfEveryRow() async throws {
    let (before, _) = try await Blocks.swept([])
    let (after, _) = try await Blocks.swept([Wanda()])
    let stream = try await Blocks.norms(of: "self_attn.q_proj")
    let (old, new) = (before[1]["self_attn.q_proj"].weight.dense(), after[1]["self_attn.q_proj"].weight.dense())
    for row in 0..<old.rows {
      let order = (0..<old.columns).sorted { abs(old[row, $0]) * stream[$0] < abs(old[row, $1]) * stream[$1] }
      for (rank, column) in order.enumerated() { #expect(new[row, column] == (rank < old.columns / 2 ? 0 : old[row, column])) }
    }
  }

  @Test(arguments: [
    "numbers: int, bits: 4, group_size: 32", "numbers: int, bits: 3, group_size: channel", "numbers: int, bits: 4, symmetric: false",
    "numbers: nvfp4", "numbers: fp8", "numbers: mxfp4",
  ])
  func maskAndCodesComeFromOneSweep(numbers: String) async throws {
    for options in ["pattern: 2:4", "sparsity: 0.5"] {
      let joint = try pass(SparseGPT.self, "{ \(options), quantize: { \(numbers) } }")
      let (blocks, report) = try await Blocks.swept([joint], Self.wide)
      #expect(report.fallbacks.isEmpty && report.layers.count == 14)
      for (name, weight) in linears(blocks) {
        let quantized = try #require(weight as? QuantizedMatrix)
        let dense = quantized.dense()
        // Some of what is kept may round to zero, too.
        #expect(dense.zeroShare >= 0.5 - 1e-9, "\(name) \(numbers)")
        if options.contains("2:4") { checkGroups(dense, kept: 2, group: 4, name) }
        #expect(report.layers.first { $0.layer == name }?.metrics["sparsity"] == dense.zeroShare)
      }
    }
  }

  @Test func oneSweepLosesLessThanTwo() async throws {
    let hessianInput = correlated(tokens: 400, features: 128, key: "joint")
    let weight = Matrix.random(rows: 96, columns: 128, key: "w")
    let pattern = SparsityPattern.grouped(kept: 2, group: 4)
    let solver = try SparseGPTSolver.prepare(hessian(hessianInput), pattern: pattern, isOrdered: false, damping: 0.01, refits: false).get()
    let scheme = QuantizationScheme(bits: 3, granularity: .group(32), symmetric: true, scaleType: .bfloat16)
    let joint = solver.factorization.quantize(
      weight, scheme: scheme, scales: .fullRange, refit: true, zeros: nil,
      choosing: ZeroChoice(pattern: pattern, sparsity: 0, pivots: solver.pivots))
    let sparse = solver.prune(weight, pattern: pattern, sparsity: 0).weight
    let nearest = RoundToNearest.quantize(sparse, scheme: scheme, scales: .fullRange)
    let h = damped(hessianInput, 0.01)
    let (one, two) = (loss(difference(weight, joint.quantized.dense()), h), loss(difference(weight, nearest.dense()), h))
    #expect(one < two)
    #expect(abs(joint.relativeLoss - one / loss(weight.doubles, h)) < 1e-3 * joint.relativeLoss)
  }

  @Test(arguments: [
    "gptq: { group_size: 32 }", "gptq: { group_size: 32, order: group, drift_correction: 0.5 }", "rtn: { group_size: 32 }",
    "rtn: { symmetric: false, group_size: 32 }", "gptq: { numbers: fp8 }", "gptq: { numbers: nvfp4 }", "rtn: { numbers: mxfp4 }",
    "gptq: { bits: 8, group_size: tensor }",
  ])
  func quantizingKeepsZeros(quantizer: String) async throws {
    let yaml = "passes: [sparsegpt: { pattern: 2:4 }, \(quantizer)]"
    let (blocks, report) = try await Blocks.swept(try Recipe(yaml: yaml, file: "r.yaml", passes: .standard).passes, Self.wide)
    #expect(report.fallbacks.isEmpty)
    for (name, weight) in linears(blocks) {
      #expect(weight is QuantizedMatrix)
      checkGroups(weight.dense(), kept: 2, group: 4, name)
      #expect((report.layers.last { $0.layer == name }?.metrics["sparsity"] ?? 0) >= 0.5)
    }
  }

  @Test func lostZerosAreSaid() async throws {
    let yaml = "passes: [magnitude: {}, rtn: { symmetric: false, zero_point: real, group_size: 32 }]"
    let (_, report) = try await Blocks.swept(try Recipe(yaml: yaml, file: "r.yaml", passes: .standard).passes)
    #expect(report.fallbacks.count == 14 && report.fallbacks.allSatisfy { $0.fallback?.hasPrefix("of 50.0 % zeros") == true })
  }

  @Test func blocksWithOutliersKeepMore() async throws {
    let scores = [Matrix(rows: 1, columns: 4, elements: [1, 1, 1, 9]), Matrix(rows: 1, columns: 4, elements: [1, 1, 1, 1])]
    // The mean is 2.
    #expect(OutlierDistribution.outliers(of: scores, above: 3) == 0.125)
    #expect(OutlierDistribution.outliers(of: scores, above: 5) == 0)
    let answer = OutlierDistribution.Answer(entries: [
      .init(block: "a", weights: 100, outliers: 0.01), .init(block: "b", weights: 100, outliers: 0.03),
      .init(block: "c", weights: 200, outliers: 0.02),
    ])
    // The published formula: shares fall linearly over a range of twice the limit, and keep their mean.
    let shares = ["a", "b", "c"].map { answer.share(of: $0, target: 0.7, limit: 0.08) }
    for (found, expected) in zip(shares, [0.78, 0.62, 0.7]) { #expect(abs(found - expected) < 1e-12) }
    let passes = [try pass(Wanda.self, "{ sparsity: 0.6, allocation: owl, owl_threshold: 2, owl_limit: 0.1 }")]
    let (blocks, _) = try await Blocks.swept(passes)
    let measured = blocks.decoders.map { block in
      let all = block.linears.values.map { $0.weight.dense() }
      return Double(all.reduce(0) { $0 + $1.elements.count { $0 == 0 } }) / Double(all.reduce(0) { $0 + $1.elements.count })
    }
    #expect(abs(measured[0] - measured[1]) > 0.1 && abs((measured[0] + measured[1]) / 2 - 0.6) < 0.03)
  }

  @Test(arguments: [
    "sparsegpt: { allocation: owl, pattern: 2:4 }", "wanda: { allocation: owl, owl_limit: 0.6 }", "sparsegpt: { damping: -1 }",
    "sparsegpt: { quantize: { numbers: int, bits: 7 } }", "sparsegpt: { order: activation, quantize: { numbers: int } }",
    "sparsegpt: { drift_correction: 2 }", "sparsegpt: { pattern: 2:4, quantize: { numbers: int, group_size: 6 } }",
    "sparsegpt: { quantize: { number: int } }", "wanda: { sparsity: 1 }",
  ])
  func mistakesAreSaid(yaml: String) {
    #expect(throws: RecipeError.self) { try Recipe(yaml: "passes: [\(yaml)]", file: "r.yaml", passes: .standard) }
  }

  @Test func planAndSweepAgree() async throws {
    let joint = try pass(SparseGPT.self, "{ pattern: 2:4, quantize: { numbers: int } }")
    let plan = try Pipeline([joint]).plan(for: TinyModel.model(Self.wide))
    let (blocks, _) = try await Blocks.swept([joint], Self.wide)
    for (name, weight) in linears(blocks) {
      let planned = try #require(plan.first { $0.name == name })
      #expect(planned.scheme == "int4 g128 2:4" && planned.storedBits == weight.storedBits)
    }
  }
}

extension Blocks {
  /// ‖x‖ of the inputs of a layer of the first block.
  static func norms(of name: LinearName) async throws -> [Float] {
    let probe = NormProbe()
    _ = try await swept([probe])
    return NormProbe.seen.withLock { $0 }
  }
}

/// Keeps the input norms of the first attention.
private struct NormProbe: BlockPass {
  static let name = "norm-probe"
  static let seen = Mutex([Float]())

  func run(on block: inout Block, in context: PassContext) throws {
    guard block.index == 0 else { return }
    let norms = try context.statistic(InputNorm.self, of: block.inputGroups[0], in: block).values
    Self.seen.withLock { $0 = norms }
  }
}
