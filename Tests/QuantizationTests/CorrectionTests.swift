import CompressKit
import Foundation
import TestSupport
import Testing

private actor Collected: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

private func sweep(_ yaml: String, _ model: Model) async throws -> (parts: [any ModelPart], report: Report) {
  let recipe = try Recipe(yaml: yaml, file: "test", passes: .standard)
  let sink = Collected()
  let report = try await Pipeline(recipe.passes).run(
    on: model, options: SweepOptions(calibration: TinyModel.sequences(8, length: 48)), into: sink)
  return (await sink.parts, report)
}

struct HQQTests {
  /// The published iteration, in double precision, keeping the best zero point.
  private func zeroPoint(_ w: [Double], bits: Int) -> (scale: Double, zero: Double, distance: Double) {
    let top = Double(1 << bits - 1)
    let (low, high) = (w.min()!, w.max()!)
    let scale = Double(DType.float32.rounded(Float((high - low) / top)))
    var zero = -low / scale
    var beta = 10.0
    var best = (zero, Double.infinity)
    for _ in 0..<20 {
      let q = w.map { min(max(($0 / scale + zero).rounded(.toNearestOrEven), 0), top) }
      let residual = zip(w, q).map { $0 - ($1 - zero) * scale }
      let distance = residual.reduce(0) { $0 + abs($1) }
      guard distance < best.1 else { break }
      best = (zero, distance)
      let sparse = residual.map { r in r == 0 ? 0 : max(abs(r) - pow(abs(r), -0.3) / beta, 0) * (r < 0 ? -1 : 1) }
      zero = (0..<w.count).reduce(0) { $0 + q[$1] - (w[$1] - sparse[$1]) / scale } / Double(w.count)
      beta *= 1.01
    }
    return (scale, best.0, best.1)
  }

  @Test(arguments: [2, 3, 4]) func followsThePublishedIteration(_ bits: Int) {
    let weight = Matrix.random(rows: 12, columns: 64, key: "hqq")
    let scheme = QuantizationScheme(bits: bits, granularity: .group(32), zeroPoint: .real, scaleType: .float32)
    let quantized = HQQ().quantize(weight, scheme: scheme)
    for row in 0..<12 {
      for group in 0..<2 {
        let values = (0..<32).map { Double(weight[row, group * 32 + $0]) }
        let expected = zeroPoint(values, bits: bits)
        #expect(abs(Double(quantized.scales[row, group]) - expected.scale) < 1e-6)
        let zero = -Double(quantized.zeroPoints![row, group]) / expected.scale
        #expect(abs(zero - expected.zero) < 0.05, "\(zero) \(expected.zero)")
        // Where the last steps win next to nothing, rounding decides which of them is taken; what they win is the same.
        let dense = (0..<32).map { Double(quantized.dense()[row, group * 32 + $0]) }
        let distance = zip(values, dense).reduce(0) { $0 + abs($1.0 - $1.1) }
        #expect(abs(distance / expected.distance - 1) < 2e-3)
      }
    }
  }

  @Test func losesNoMoreThanMinimumAndMaximumDo() async throws {
    let weight = Matrix.random(rows: 30, columns: 128, key: "hqq loss")
    func distance(_ quantized: QuantizedMatrix) -> Double {
      zip(quantized.dense().elements, weight.elements).reduce(0) { $0 + Double(abs($1.0 - $1.1)) }
    }
    for zero in [QuantizationScheme.ZeroPoint.real, .integer] {
      let scheme = QuantizationScheme(bits: 3, granularity: .group(32), zeroPoint: zero)
      let plain = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
      #expect(distance(HQQ().quantize(weight, scheme: scheme)) <= distance(plain) * 1.001)
    }
    let (blocks, report) = try await sweep("passes: [ { hqq: { bits: 4, group_size: 16 } } ]", try TinyModel.model())
    #expect(blocks[1].linears.values.allSatisfy { ($0.weight as? QuantizedMatrix)?.scheme.zeroPoint == .real })
    #expect(report.fallbacks.isEmpty && report.layers.allSatisfy { $0.scheme == "int4 g16 bias" })
  }
}

struct LQERTests {
  @Test func theRemainingLossIsTheTailOfTheSpectrum() async throws {
    let (plain, _) = try await sweep("passes: [ { rtn: { bits: 2, group_size: 16 } } ]", try TinyModel.model())
    let (corrected, report) = try await sweep(
      "passes: [ { rtn: { bits: 2, group_size: 16 } }, { lqer: { rank: 8 } } ]", try TinyModel.model())
    for (name, linear) in corrected[1].linears {
      let sum = try #require(linear.weight as? SumOfWeights)
      let branch = try #require(sum.terms[1] as? LowRankMatrix)
      #expect(branch.rank == 8)
      #expect(sum.terms[0].dense() == plain[1][name].weight.dense())
      #expect(sum.storedBits == sum.terms[0].storedBits + 8 * (branch.rows + branch.columns) * branch.storageType.bitCount)
    }
    let remaining = report.layers.compactMap { $0.metrics["remaining_loss"] }
    #expect(remaining.count == 14 && remaining.allSatisfy { (0.01..<0.8).contains($0) }, "\(remaining)")
  }

  @Test func moreRankLeavesLess() async throws {
    var last = Double.infinity
    for rank in [1, 4, 12] {
      let (_, report) = try await sweep(
        "passes: [ { rtn: { bits: 2, group_size: 16 } }, { lqer: { rank: \(rank) } } ]", try TinyModel.model())
      let sum = report.layers.compactMap { $0.metrics["remaining_loss"] }.reduce(0, +)
      #expect(sum < last)
      last = sum
    }
  }

  @Test func aRankThatIsNoneIsRefused() async {
    await #expect(throws: PipelineError.self) {
      _ = try await sweep("passes: [ { rtn: { bits: 2, group_size: 16 } }, { lqer: { rank: 32 } } ]", try TinyModel.model())
    }
  }
}

struct DriftTests {
  @Test func theFirstLayersHaveNotDrifted() async throws {
    let model = try TinyModel.model()
    let (plain, _) = try await sweep("passes: [ { gptq: { bits: 2, group_size: 16 } } ]", model)
    let (corrected, _) = try await sweep("passes: [ { gptq: { bits: 2, group_size: 16, drift_correction: 1 } } ]", model)
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] as [LinearName] {
      #expect(plain[1][name].weight.dense() == corrected[1][name].weight.dense())
    }
    #expect(plain[1]["mlp.down_proj"].weight.dense() != corrected[1]["mlp.down_proj"].weight.dense())
  }

  /// On the calibration data itself the full correction must bring the outputs closer to the original model's.
  @Test func outputsComeCloser() async throws {
    let model = try TinyModel.model()
    let tokens = TinyModel.sequences(8, length: 48)
    func outputs(_ blocks: [Block]) throws -> [Matrix] {
      let embedding = try model.embedding()
      let table = embedding["embed_tokens"].weight.dense()
      return try tokens.map { sequence in
        var hidden = Matrix(rows: sequence.count, columns: 32, elements: sequence.flatMap { table.rows(Int($0)..<Int($0) + 1).elements })
        for block in blocks { hidden = try PreparedBlock(block, positions: 48).forward(hidden) }
        return hidden
      }
    }
    let original = try outputs([try model.block(0), try model.block(1)])
    func error(_ yaml: String) async throws -> Double {
      let (parts, _) = try await sweep(yaml, model)
      return zip(try outputs(parts.decoders), original).reduce(0) { sum, pair in
        sum + zip(pair.0.elements, pair.1.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
      }
    }
    let plain = try await error("passes: [ { gptq: { bits: 2, group_size: 16 } } ]")
    let corrected = try await error("passes: [ { gptq: { bits: 2, group_size: 16, drift_correction: 1 } } ]")
    #expect(corrected < plain, "\(corrected) \(plain)")
  }
}

struct KVCacheScalesTests {
  @Test func scalesCoverWhatWasSeen() async throws {
    for (scheme, largest) in [("fp8", 448.0), ("int8", 127.5)] {
      let (parts, report) = try await sweep("passes: [ { kv_cache: { scheme: \(scheme) } } ]", try TinyModel.model())
      for block in parts.decoders {
        let cache = try #require(block.cache)
        let record = try #require(report.layers.first { $0.layer == block.name })
        #expect(abs(Double(cache.key.scale) * largest - record.metrics["key_maximum"]!) < 1e-4)
        #expect(abs(Double(cache.value.scale) * largest - record.metrics["value_maximum"]!) < 1e-4)
      }
    }
  }
}
