import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Quantization

actor Shelf: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

func run(
  _ passes: [any Pass], on model: Model, sequences: [[Int32]] = TinyModel.sequences(8, length: 40)
) async throws -> (parts: [any ModelPart], report: Report) {
  let shelf = Shelf()
  let report = try await Pipeline(passes).run(on: model, options: SweepOptions(calibration: sequences), into: shelf)
  return (await shelf.parts, report)
}

/// What one pass makes of the decoder blocks of a model, with `following` to come after it and none of them run.
func transformed(
  _ pass: some BlockPass, before following: [any Pass], _ model: Model, sequences: [[Int32]] = TinyModel.sequences(8, length: 40)
) throws -> (blocks: [Block], records: [Report.LayerRecord]) {
  let stream = try CalibrationStream(sequences, description: model.description, memory: .max, scratch: URL(filePath: "/"))
  let table = try model.embedding()
  try stream.embed(table, reference: table)
  let records = PassContext.Records()
  let blocks = try model.description.blocks.indices.map { index in
    let original = try model.block(index)
    let context = PassContext(
      stream: stream, answers: Answers(), seed: 0, pass: type(of: pass).name, strict: true, records: records, reference: original,
      following: following)
    var block = original
    try pass.run(on: &block, in: context)
    _ = try stream.finish(block, reference: original)
    return block
  }
  return (blocks, records.take())
}

/// A tiny model of one block, a few of whose inputs are far larger than the rest, as real models' are.
func modelWithOutliers(dtype: DType = .float32) throws -> Model {
  var checkpoint = try EditableCheckpoint(
    TinyModel.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":1"), dtype: dtype)
  for name in ["input_layernorm", "post_attention_layernorm"] {
    let full = "model.layers.0.\(name).weight"
    var values = try #require(checkpoint[full]).floats()
    for channel in [3, 17] { values[channel] *= 12 }
    checkpoint[full] = Tensor(values, shape: [values.count], dtype: dtype)
  }
  return try checkpoint.model()
}

/// ‖block(x) − original(x)‖² / ‖original(x) − x‖² over sequences that start as their embeddings.
func blockLoss(_ block: Block, _ model: Model, _ sequences: [[Int32]]) throws -> Double {
  let table = try model.embedding()["embed_tokens"].weight.dense()
  let (own, original) = (PreparedBlock(block, positions: 64), PreparedBlock(try model.block(0), positions: 64))
  var (error, norm) = (0.0, 0.0)
  for sequence in sequences {
    let x = Matrix(stacking: sequence.map { table.rows(Int($0)..<Int($0) + 1) })
    let (got, expected) = (try own.forward(x), try original.forward(x))
    for i in x.elements.indices {
      error += pow(Double(got.elements[i] - expected.elements[i]), 2)
      norm += pow(Double(expected.elements[i] - x.elements[i]), 2)
    }
  }
  return error / norm
}

func rounding(_ bits: Int, group: GroupSize = 16, scales: ScaleChoice = .clip) -> RoundToNearest {
  var pass = RoundToNearest()
  (pass.bits, pass.groupSize, pass.scales) = (bits, group, scales)
  return pass
}

struct AWQTests {
  // MARK: - The formula

  /// Steps 1 to 4 of the algorithm for one linear that reads `x` and adds to `residual`, in double, with min–max rounding.
  private func reference(_ weight: Matrix, _ x: Matrix, residual: Matrix, group: Int, bits: Int, grid: Int, duo: Bool) -> (
    ratio: Double, loss: Double, unscaled: Double, losses: [Int: Double]
  ) {
    let (rows, columns) = (weight.rows, weight.columns)
    func w(_ row: Int, _ column: Int) -> Double { Double(weight[row, column]) }
    let activity = (0..<columns).map { column in (0..<x.rows).reduce(0.0) { $0 + abs(Double(x[$1, column])) } / Double(x.rows) }
    let share = (0..<columns).map { column -> Double in
      (0..<rows).reduce(0.0) { sum, row in
        let first = column / group * group
        let largest = (first..<first + group).map { abs(w(row, $0)) }.max()!
        return sum + abs(w(row, column)) / (largest + 1e-6)
      } / Double(rows)
    }
    func loss(_ scale: [Double]) -> Double {
      var errors = [Double](repeating: 0, count: x.rows)
      var sizes = errors
      for row in 0..<rows {
        var wrong = [Double](repeating: 0, count: columns)
        for first in stride(from: 0, to: columns, by: group) {
          let scaled = (first..<first + group).map { w(row, $0) * scale[$0] }
          let step = scaled.map(abs).max()! / (Double((1 << bits) - 1) / 2)
          let half = Double(1 << (bits - 1))
          for column in first..<first + group {
            let code = min(max((scaled[column - first] / step).rounded(.toNearestOrEven), -half), half - 1)
            wrong[column] = code * step / scale[column] - w(row, column)
          }
        }
        for token in 0..<x.rows {
          let (e, y) = (0..<columns).reduce((0.0, 0.0)) {
            ($0.0 + wrong[$1] * Double(x[token, $1]), $0.1 + w(row, $1) * Double(x[token, $1]))
          }
          errors[token] += e * e
          sizes[token] += pow(y + Double(residual[token, row]), 2)
        }
      }
      return zip(errors, sizes).reduce(0) { $0 + $1.0 / $1.1 } / Double(x.rows)
    }
    let unscaled = loss([Double](repeating: 1, count: columns))
    var best = (ratio: 0.0, loss: unscaled)
    var losses: [Int: Double] = [:]
    for step in (duo ? 0 : 1)...grid {
      let ratio = Double(step) / Double(grid)
      var scale = (0..<columns).map { max(1e-4, pow(activity[$0], ratio) / (duo ? pow(share[$0], 1 - ratio) + 1e-4 : 1)) }
      let balance = (scale.max()! * scale.min()!).squareRoot()
      scale = scale.map { $0 / balance }
      let found = loss(scale)
      losses[step] = found
      if found < best.loss { best = (ratio, found) }
    }
    return (best.ratio, best.loss, unscaled, losses)
  }

  @Test(arguments: [DuoScaling.enabled, .disabled], [2, 3, 4]) func theDownProjectionGetsTheScaleOfTheFormula(duo: DuoScaling, bits: Int)
    async throws
  {
    let model = try TinyModel.model(TinyModel.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":1"))
    let sequences = TinyModel.sequences(4, length: 30)
    var pass = AWQ()
    (pass.grid, pass.duo, pass.layers) = (10, duo, LayerSelector(include: ["down_proj"]))
    let (_, report) = try await run([pass, rounding(bits, scales: .minmax)], on: model, sequences: sequences)
    let metrics = try #require(report.layers.first { $0.pass == "awq" && $0.layer.hasSuffix("down_proj") }).metrics
    #expect(report.layers.filter { $0.pass == "awq" }.count == 1)
    // The inputs of the down-projection, by the block's own stages.
    let block = try model.block(0)
    let prepared = PreparedBlock(block, positions: 30)
    let table = try model.embedding()["embed_tokens"].weight.dense()
    let states = try sequences.map { sequence in
      var state = try prepared.start(Matrix(stacking: sequence.map { table.rows(Int($0)..<Int($0) + 1) }))
      while state.stage < 3 { try prepared.advance(&state) }
      return state
    }
    let expected = reference(
      block["mlp.down_proj"].weight.dense(), Matrix(stacking: states.map { $0.input! }), residual: Matrix(stacking: states.map(\.residual)),
      group: 16, bits: bits, grid: 10, duo: duo == .enabled)
    // At four bits one code on the other side of a half, in one precision or the other, is already a per cent of the loss. Two ratios that
    // are closer than that may change places: whichever is chosen must be as good as the best in double.
    let tolerance = bits == 4 ? 5e-2 : 2e-3
    let ratio = try #require(metrics["ratio"])
    let chosen = abs(ratio - expected.ratio) < 1e-6 ? expected.loss : try #require(expected.losses[Int((ratio * 10).rounded())])
    #expect(chosen <= expected.loss * (1 + (bits == 4 ? 1e-2 : 0)), "\(metrics) \(expected)")
    #expect(abs(try #require(metrics["loss"]) - chosen) < tolerance * chosen, "\(metrics) \(expected)")
    #expect(abs(try #require(metrics["unscaled_loss"]) - expected.unscaled) < tolerance * expected.unscaled)
  }

  @Test func scalesAreBalancedAndFinite() {
    let scale = AWQ.scale(activity: [4, 1, 0.25, 0], weights: nil, ratio: 0.5)
    let smallest: Float = 1e-4
    let balance = (2 * smallest).squareRoot()
    for (got, expected) in zip(scale, [2, 1, 0.5, smallest]) { #expect(abs(got - expected / balance) < 1e-3 * expected / balance) }
    #expect(AWQ.scale(activity: [1, 2, 3], weights: nil, ratio: 0) == [1, 1, 1])
    #expect(AWQ.scale(activity: [.infinity, .nan, 3], weights: nil, ratio: 1)[0] == 1)
    for value in AWQ.scale(activity: [0, 0], weights: [0, 1], ratio: 0.3) { #expect(value.isFinite && value > 0) }
  }

  // MARK: - What it does to a block

  @Test(arguments: [DuoScaling.enabled, .disabled, .both], [false, true])
  func outliersGainAndNothingLoses(duo: DuoScaling, clip: Bool) async throws {
    let model = try modelWithOutliers(dtype: .bfloat16)
    let sequences = TinyModel.sequences(8, length: 40)
    var pass = AWQ()
    (pass.grid, pass.duo, pass.clip) = (10, duo, clip)
    for bits in [2, 3, 4] {
      let (parts, report) = try await run([pass, rounding(bits)], on: model, sequences: sequences)
      let (plain, _) = try await run([rounding(bits)], on: model, sequences: sequences)
      let records = report.layers.filter { $0.pass == "awq" }
      #expect(records.count == 7)
      for record in records {
        #expect(try #require(record.metrics["loss"]) <= #require(record.metrics["unscaled_loss"]))
        let reverted = try #require(record.metrics["reverted"])
        #expect(try #require(record.metrics["block_loss"]) <= #require(record.metrics["unscaled_block_loss"]) || reverted == 1)
        #expect(record.metrics.keys.contains("clipped_share") == clip)
      }
      let gate = try #require(records.first { $0.layer.hasSuffix("gate_proj") }).metrics
      #expect(try #require(gate["loss"]) < #require(gate["unscaled_loss"]), "inputs twelve times as large are worth a finer grid")
      // What must not grow is the loss on the sample, above; on all tokens it may, by what the sample does not know.
      let (scaled, unscaled) = (try blockLoss(parts.decoders[0], model, sequences), try blockLoss(plain.decoders[0], model, sequences))
      #expect(scaled < 1.15 * unscaled, "\(bits) bits: \(scaled) \(unscaled)")
    }
  }

  @Test func theBlockComputesWhatItDid() throws {
    let model = try modelWithOutliers()
    let block = try transformed(AWQ(), before: [rounding(3)], model).blocks[0]
    #expect(block.norms != (try model.block(0)).norms)
    #expect(try blockLoss(block, model, TinyModel.sequences(4, length: 30)) < 1e-9)
  }

  @Test func aBlockThatWouldLoseIsLeftAsItWas() throws {
    // Small samples choose badly: some blocks of these models are worse off with what their layers chose.
    var seen = 0
    for bits in [2, 3, 4] {
      for size in [8, 16, 32] as [GroupSize] {
        var pass = AWQ()
        (pass.grid, pass.tokens) = (5, 12)
        let model = try TinyModel.model()
        let (blocks, all) = try transformed(pass, before: [rounding(bits, group: size)], model)
        for index in 0..<2 {
          let name = "model.layers.\(index)"
          let records = all.filter { $0.layer.hasPrefix(name) }
          #expect(Set(records.map { $0.metrics["reverted"] }).count == 1, "a block is reverted as a whole")
          guard records[0].metrics["reverted"] == 1 else { continue }
          seen += 1
          let (original, left) = (try model.block(index), blocks[index])
          #expect(left.norms == original.norms && left.linears.values.allSatisfy { $0.weight is StoredWeight })
        }
      }
    }
    #expect(seen > 0, "no block was reverted, so this test has seen nothing")
  }

  @Test func scalesThatOnlyHarmAreNotChosen() throws {
    let model = try TinyModel.model()
    let block = try model.block(0)
    let sequences = (0..<3).map { Matrix.random(rows: 20, columns: 32, key: "hidden \($0)") }
    let search = ScalingSearch(
      sample: try BlockSample(of: block, sequences: sequences, tokens: 64), preview: QuantizerPreview([rounding(3, group: .channel)]))
    for scaling in block.description.scalings {
      let wild = (0..<scaling.channels).map { Float($0 % 2 == 0 ? 100 : 0.01) }
      let choice = try #require(try search.choose(scaling, among: [.init(scale: wild, metrics: [:])], for: block))
      #expect(choice.candidate == nil && choice.loss == choice.unscaledLoss && choice.factors.allSatisfy { $0 == 1 })
      #expect(choice.block.norms == block.norms)
      for name in block.linears.keys { #expect(choice.block[name].revision == block[name].revision) }
      #expect(try search.choose(scaling, among: [], for: block)?.loss == choice.loss)
    }
    let idle = ScalingSearch(sample: search.sample, preview: QuantizerPreview([GPTQ.onlyHead]))
    #expect(try idle.choose(block.description.scalings[0], among: [], for: block) == nil)
  }

  @Test func threadsDoNotMatter() async throws {
    let model = try modelWithOutliers(dtype: .bfloat16)
    var pass = AWQ()
    (pass.grid, pass.clip, pass.duo) = (6, true, .both)
    let one = try await Parallel.$width.withValue(1) { try await run([pass, rounding(3)], on: model) }
    let four = try await Parallel.$width.withValue(4) { try await run([pass, rounding(3)], on: model) }
    #expect(one.report.layers == four.report.layers)
    for (a, b) in zip(one.parts, four.parts) {
      #expect(a.norms == b.norms)
      for name in a.linears.keys { #expect(a[name].weight.dense() == b[name].weight.dense()) }
    }
  }

  // MARK: - Options

  @Test func onlyWhatIsSelectedIsScaled() async throws {
    let model = try modelWithOutliers()
    var pass = AWQ()
    pass.layers = LayerSelector(exclude: ["k_proj", "o_proj"])
    var quantizer = rounding(3)
    quantizer.layers = LayerSelector(exclude: ["down_proj"])
    let (parts, report) = try await run([pass, quantizer], on: model)
    // A scale needs all that read its input, and one of them to be quantized.
    #expect(report.layers.filter { $0.pass == "awq" }.map(\.layer) == ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"])
    let original = try model.block(0)
    #expect(parts[1].norms["input_layernorm"] == original.norms["input_layernorm"])
    #expect(parts[1]["mlp.down_proj"].weight is StoredWeight)
  }

  @Test func itNeedsAQuantizerAndData() async throws {
    let model = try TinyModel.model()
    let error = await #expect(throws: PipelineError.self) { try await run([rounding(4), AWQ()], on: model) }
    #expect((error?.cause as? InvalidOption)?.option == "passes")
    let other = await #expect(throws: PipelineError.self) { try await run([AWQ(), rounding(4)], on: model, sequences: []) }
    #expect(other?.cause is MissingCalibration)
    let late = await #expect(throws: PipelineError.self) { try await run([rounding(4), AWQ(), rounding(4)], on: model) }
    #expect(late?.cause is AlreadyQuantized)
  }

  @Test func optionsAreReadAndChecked() throws {
    let passes = ["true", "false", "both"].map { "passes:\n  - awq: { duo: \($0), grid: 5 }\n  - rtn: { bits: 4 }\noutput: {}\n" }
    let read = try passes.map { try Recipe(yaml: $0, file: "r", passes: .standard).passes[0] as? AWQ }
    #expect(read.map(\.?.duo) == [.enabled, .disabled, .both] && read.allSatisfy { $0?.grid == 5 })
    #expect(throws: (any Error).self) {
      try Recipe(yaml: "passes:\n  - awq: { duo: maybe }\n  - rtn: {}\noutput: {}\n", file: "r", passes: .standard)
    }
    let again = try JSONDecoder().decode([DuoScaling].self, from: JSONEncoder().encode(DuoScaling.allCases))
    #expect(again == DuoScaling.allCases)
    func option(_ change: (inout AWQ) -> Void) -> String? {
      var pass = AWQ()
      change(&pass)
      do throws(InvalidOption) { try pass.validate() } catch { return error.option }
      return nil
    }
    #expect(option { _ in } == nil)
    #expect(option { $0.grid = 0 } == "grid")
    #expect(option { $0.tokens = 0 } == "tokens")
    #expect(option { $0.sequences = 0 } == "sequences")
  }
}

extension GPTQ {
  fileprivate static var onlyHead: GPTQ {
    var pass = GPTQ()
    pass.layers = LayerSelector(include: ["lm_head"])
    return pass
  }
}
