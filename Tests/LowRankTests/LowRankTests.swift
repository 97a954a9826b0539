import CompressKit
import Foundation
import TestSupport
import Testing

struct LowRankTests {
  @Test(arguments: ["share: never", "share: always", "share: never, sequential: false", "share: never, drift_correction: 0"])
  func everyLayerLosesTheTailOfItsSpectrum(_ options: String) async throws {
    let (blocks, report) = try await sweep("{ low_rank: { ratio: 0.2, rank_multiple: 1, \(options) } }", try TinyModel.model())
    #expect(report.layers.count == 14 && report.fallbacks.isEmpty)
    let weights = blocks.flatMap { block in block.linears.map { (block.fullName(of: $0.key), $0.value.weight) } }
    let factored = Dictionary(uniqueKeysWithValues: weights.map { ($0, $1 as? FactoredWeight) })
    // Linears that share A have a tail in common, and it is the mean of their losses.
    let units = Dictionary(grouping: report.layers) { record in
      let owner = factored[record.layer]!!.sharesInputOf
      return owner.map { record.layer.prefix(15) + $0.rawValue } ?? record.layer[...]
    }
    #expect(units.count == (options.contains("always") ? 8 : 14))
    for (name, records) in units {
      let loss = records.reduce(0) { $0 + $1.metrics["relative_layer_loss"]! } / Double(records.count)
      for record in records { #expect(abs(loss / record.metrics["spectral_tail"]! - 1) < 1e-4, "\(name) \(record.metrics)") }
    }
    let before = weights.reduce(0) { $0 + $1.1.rows * $1.1.columns }
    let after = weights.reduce(0) { $0 + $1.1.storedBits / 16 }
    #expect(Double(after) <= 0.8 * Double(before) && Double(after) > 0.7 * Double(before))
  }

  @Test func theCommonFactorIsStoredOnce() async throws {
    let (blocks, _) = try await sweep("{ low_rank: { share: always, rank_multiple: 1 } }", try TinyModel.model())
    let (q, k) = (blocks[0]["self_attn.q_proj"].weight, blocks[0]["self_attn.k_proj"].weight)
    let (first, second) = (try #require(q as? FactoredWeight), try #require(k as? FactoredWeight))
    #expect(first.sharesInputOf == nil && second.sharesInputOf == "self_attn.q_proj")
    #expect(first.input.dense() == second.input.dense())
    #expect(second.storedBits == second.rank * second.rows * 16 && first.storedBits == first.rank * (first.rows + first.columns) * 16)
  }

  @Test func fullDriftCorrectionIsTheReducedRankRegression() async throws {
    let model = try TinyModel.model()
    func error(_ correction: Double) async throws -> Double {
      let (blocks, _) = try await sweep(
        "{ low_rank: { ratio: 0.4, rank_multiple: 1, share: never, drift_correction: \(correction) } }", model)
      let table = try model.embedding()["embed_tokens"].weight.dense()
      var sum = 0.0
      for sequence in TinyModel.sequences(8, length: 48) {
        let start = Matrix(rows: sequence.count, columns: 32, elements: sequence.flatMap { table.rows(Int($0)..<Int($0) + 1).elements })
        var (own, other) = (start, start)
        for index in 0..<2 {
          own = try PreparedBlock(blocks[index], positions: 48).forward(own)
          other = try PreparedBlock(try model.block(index), positions: 48).forward(other)
        }
        sum += zip(own.elements, other.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
      }
      return sum
    }
    let (with, without) = (try await error(1), try await error(0))
    #expect(with < without, "\(with) \(without)")
  }

  @Test func aLayerThatNoRankMakesSmallerIsLeftAlone() async throws {
    let (blocks, report) = try await sweep("{ low_rank: { rank_multiple: 16, share: never } }", try TinyModel.model())
    let small: Set<LinearName> = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    for (name, linear) in blocks[0].linears { #expect((linear.weight is FactoredWeight) == !small.contains(name), "\(name)") }
    #expect(report.fallbacks.count == 8 && report.fallbacks.allSatisfy { $0.fallback!.contains("left dense") })
  }

  @Test func mergedFactorsAreTheSameNumbers() async throws {
    let options = "share: never, drift_correction: 0, sequential: false, rank_multiple: 2"
    let (factored, _) = try await sweep("{ low_rank: { \(options) } }", try TinyModel.model())
    let (merged, _) = try await sweep("{ low_rank: { \(options), merge: true } }", try TinyModel.model())
    for (name, linear) in merged[0].linears {
      #expect(linear.weight is Matrix && linear.weight.dense() == factored[0][name].weight.dense())
    }
  }

  @Test(arguments: ["energy", "kl"]) func ranksAreAllocatedWithinTheBudget(_ allocation: String) async throws {
    let options = "rank_multiple: 1, share: never, drift_correction: 0, sequential: false"
    func losses(_ more: String) async throws -> (loss: Double, bits: Int) {
      let (blocks, report) = try await sweep("{ low_rank: { \(options), \(more) } }", try TinyModel.model(), sequences: 20)
      let bits = blocks.flatMap(\.linears.values).reduce(0) { $0 + $1.weight.storedBits(denseAs: $1.storageType) }
      return (report.layers.reduce(0) { $0 + ($1.metrics["relative_layer_loss"] ?? 0) }, bits)
    }
    let (uniform, allocated) = (try await losses("allocation: uniform"), try await losses("allocation: \(allocation), probes: 2"))
    let whole = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64) * 32
    #expect(Double(allocated.bits) <= 0.8 * Double(whole))
    if allocation == "energy" { #expect(allocated.loss < uniform.loss, "\(allocated) \(uniform)") }
  }

  @Test(arguments: [
    ("{ rtn: { bits: 4, group_size: 16 } }, low_rank", "before what compresses"),
    ("{ low_rank: { layers: lm_head } }", "only layers of decoder blocks"),
    ("{ low_rank: { rank_multiple: 2 } }, { awq: { grid: 4 } }, { rtn: { group_size: 2 } }", "two low-rank factors by now"),
    ("{ low_rank: { rank_multiple: 2 } }, { gptq: { group_size: 32 } }", "does not divide"),
  ])
  func whatCannotBeIsRefused(_ passes: String, _ words: String) async throws {
    let error = await #expect(throws: PipelineError.self) { _ = try await sweep(passes, try TinyModel.model()) }
    #expect("\(error!)".contains(words), "\(error!)")
  }
}

extension Weight {
  fileprivate func storedBits(denseAs type: DType) -> Int {
    if let factors = self as? FactoredWeight { return factors.storedBits(denseAs: type) }
    return rows * columns * type.bitCount
  }
}

struct QuantizedFactorTests {
  @Test func bothFactorsAreQuantizedAndTheSecondMendsTheFirst() async throws {
    let model = try TinyModel.model()
    let factors = "{ low_rank: { ratio: 0.2, rank_multiple: 4, drift_correction: 0 } }"
    let (plain, _) = try await sweep(factors, model)
    let (rounded, _) = try await sweep("\(factors), { rtn: { bits: 4, group_size: 4 } }", model)
    let (solved, report) = try await sweep("\(factors), { gptq: { bits: 4, group_size: 4 } }", model)
    var losses = [0.0, 0.0]
    for (index, blocks) in [rounded, solved].enumerated() {
      for (name, linear) in blocks[0].linears {
        let factors = try #require(linear.weight as? FactoredWeight)
        #expect(factors.input is QuantizedMatrix && factors.output is QuantizedMatrix)
        if let owner = factors.sharesInputOf { #expect(blocks[0][owner].weight.sharedInput == factors.input as? QuantizedMatrix) }
        let exact = plain[0][name].weight.dense()
        losses[index] += zip(factors.dense().elements, exact.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
      }
    }
    let gptq = report.layers.filter { $0.pass == "gptq" }
    #expect(gptq.count == 14 && gptq.allSatisfy { $0.metrics["relative_layer_loss"]! < 0.1 }, "\(gptq.map(\.metrics))")
    #expect(losses.allSatisfy { $0 > 0 })
  }
}

extension Weight {
  fileprivate var sharedInput: QuantizedMatrix? { (self as? FactoredWeight)?.input as? QuantizedMatrix }
}
