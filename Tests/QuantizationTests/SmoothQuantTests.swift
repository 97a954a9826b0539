import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Quantization

struct SmoothQuantTests {
  private func eightBits() -> RoundToNearest {
    var pass = rounding(8, group: .channel)
    pass.activations = .int8
    return pass
  }

  /// What every input group of a block reads, row after row, by the block's own stages.
  private func inputs(of block: Block, _ model: Model, _ sequences: [[Int32]]) throws -> [Matrix] {
    let prepared = PreparedBlock(block, positions: 64)
    let table = try model.embedding()["embed_tokens"].weight.dense()
    let states = try sequences.map { sequence in
      var state = try prepared.start(Matrix(stacking: sequence.map { table.rows(Int($0)..<Int($0) + 1) }))
      var all: [Matrix] = []
      while let input = state.input {
        all.append(input)
        try prepared.advance(&state)
      }
      return all
    }
    return (0..<4).map { stage in Matrix(stacking: states.map { $0[stage] }) }
  }

  @Test(arguments: [0, 0.3, 0.5, 0.85, 1]) func scalesAreThoseOfTheFormula(strength: Double) throws {
    let model = try modelWithOutliers()
    let sequences = TinyModel.sequences(5, length: 30)
    let original = try model.block(0)
    var pass = SmoothQuant.smoothQuant(strength: .fixed(strength))
    pass.producers = .all
    let (blocks, records) = try transformed(pass, before: [], model, sequences: sequences)
    let read = try inputs(of: original, model, sequences)
    for (stage, scaling) in original.description.scalings.enumerated() {
      var (x, w) = ([Double](repeating: 0, count: scaling.channels), [Double](repeating: 0, count: scaling.channels))
      for column in 0..<scaling.columns {
        let channel = scaling.channel(of: column)
        for row in 0..<read[stage].rows { x[channel] = max(x[channel], abs(Double(read[stage][row, column]))) }
        for name in scaling.consumers {
          let weight = original[name].weight.dense()
          for row in 0..<weight.rows { w[channel] = max(w[channel], abs(Double(weight[row, column]))) }
        }
      }
      let expected = zip(x, w).map { pow($0, strength) / pow($1, 1 - strength) }
      let name = scaling.consumers[0]
      let (scaled, before) = (blocks[0][name].weight.dense(), original[name].weight.dense())
      // The columns say by how much.
      for column in 0..<scaling.columns {
        let ratio = expected[scaling.channel(of: column)]
        #expect(abs(Double(scaled[0, column] / before[0, column]) - ratio) < 1e-4 * ratio, "\(name) \(column)")
      }
    }
    #expect(records.count == 7 && records.allSatisfy { $0.metrics.count == 1 && abs($0.metrics["strength"]! - strength) < 1e-6 })
    #expect(try blockLoss(blocks[0], model, sequences) < 1e-9, "the block computes what it did")
  }

  @Test func normsAloneByDefault() throws {
    let model = try modelWithOutliers(dtype: .bfloat16)
    let (blocks, records) = try transformed(SmoothQuant.smoothQuant(strength: 0.5), before: [], model)
    let original = try model.block(0)
    #expect(
      Set(records.map(\.layer))
        == Set(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"].map { "model.layers.0.\($0)" }))
    for name in ["self_attn.o_proj", "mlp.down_proj"] as [LinearName] {
      #expect(blocks[0][name].revision == original[name].revision || blocks[0][name].weight is StoredWeight)
    }
    for (name, norm) in blocks[0].norms.weights { #expect(norm != original.norms[name] && norm == norm.map(DType.bfloat16.rounded)) }
  }

  @Test func channelsWithoutRangeStay() {
    #expect(SmoothQuant.scale(inputs: [0, 1, 4], weights: [1, 0, 1], strength: 0.5) == [1, 1, 2])
    #expect(SmoothQuant.scale(inputs: [1e-30], weights: [1], strength: 1) == [1e-5])
    #expect(SmoothQuant.scale(inputs: [.infinity], weights: [1], strength: 1) == [1])
  }

  @Test func theStrengthIsTheOneThatLosesLeast() async throws {
    let model = try modelWithOutliers(dtype: .bfloat16)
    let sequences = TinyModel.sequences(8, length: 40)
    let (parts, report) = try await run([SmoothQuant(), eightBits()], on: model, sequences: sequences)
    let (plain, _) = try await run([eightBits()], on: model, sequences: sequences)
    let records = report.layers.filter { $0.pass == "smoothquant" }
    #expect(records.count == 5)
    for record in records {
      let (loss, unscaled) = (try #require(record.metrics["loss"]), try #require(record.metrics["unscaled_loss"]))
      #expect(loss <= unscaled && (record.metrics["strength"] == nil) == (record.metrics["reverted"] == 1))
    }
    let gate = try #require(records.first { $0.layer.hasSuffix("gate_proj") }).metrics
    #expect(
      try #require(gate["loss"]) < 0.7 * #require(gate["unscaled_loss"]), "inputs twelve times as large drown the others in one scale")
    #expect(try blockLoss(parts.decoders[0], model, sequences) < blockLoss(plain.decoders[0], model, sequences))
    #expect(parts[1].linears.values.allSatisfy { $0.inputQuantization == .int(8) && $0.weight is QuantizedMatrix })
  }

  @Test func threadsDoNotMatter() async throws {
    let model = try modelWithOutliers(dtype: .bfloat16)
    let one = try await Parallel.$width.withValue(1) { try await run([SmoothQuant(), eightBits()], on: model) }
    let four = try await Parallel.$width.withValue(4) { try await run([SmoothQuant(), eightBits()], on: model) }
    #expect(one.report.layers == four.report.layers)
    for (a, b) in zip(one.parts, four.parts) { #expect(a.norms == b.norms) }
  }

  @Test func optionsAreReadAndChecked() async throws {
    let read = try ["0.75", "1", "auto"].map { strength in
      try Recipe(
        yaml: "passes:\n  - smoothquant: { strength: \(strength), producers: all }\n  - rtn: {}\noutput: {}\n", file: "r", passes: .standard
      )
      .passes[0] as? SmoothQuant
    }
    #expect(read.map(\.?.strength) == [0.75, 1.0, .auto] && read.allSatisfy { $0?.producers == .all })
    #expect(throws: (any Error).self) {
      try Recipe(yaml: "passes:\n  - smoothquant: { strength: strong }\noutput: {}\n", file: "r", passes: .standard)
    }
    #expect(throws: (any Error).self) {
      try Recipe(yaml: "passes:\n  - smoothquant: { strength: 1.5 }\noutput: {}\n", file: "r", passes: .standard)
    }
    let strengths: [Strength] = [.auto, 0.25]
    #expect(try JSONDecoder().decode([Strength].self, from: JSONEncoder().encode(strengths)) == strengths)
    let model = try TinyModel.model()
    let error = await #expect(throws: PipelineError.self) { try await run([SmoothQuant()], on: model) }
    #expect((error?.cause as? InvalidOption)?.option == "passes")
    let late = await #expect(throws: PipelineError.self) {
      try await run([eightBits(), SmoothQuant.smoothQuant(strength: 0.5)], on: model)
    }
    #expect(late?.cause is AlreadyQuantized)
  }
}
