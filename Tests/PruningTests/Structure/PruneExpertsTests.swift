import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Pruning

struct PruneExpertsTests {
  private static let sequences = TinyModel.sequences(8, length: 32)

  private func pruned(_ name: String, _ change: (inout PruneExperts) -> Void = { _ in }) async throws -> (before: Model, after: Swept) {
    let model = try Families.model(name)
    var pass = PruneExperts()
    change(&pass)
    return (model, try await Swept([pass], on: model, sequences: Self.sequences))
  }

  /// Equation 9 of REAP, token by token, in the first mixture of the model.
  @Test(arguments: Families.mixtures) func scoresAreThoseOfThePaper(_ name: String) async throws {
    let (model, swept) = try await pruned(name)
    let table = try model.embedding()
    var hidden = try Self.sequences.map { try PreparedEmbedding(table)($0) }
    let index = try #require(model.description.blocks.firstIndex { $0.feedForward?.mixture != nil })
    for layer in 0..<index {
      let prepared = PreparedBlock(try model.block(layer), positions: 32)
      hidden = try hidden.map { try prepared.forward($0) }
    }
    let block = try model.block(index)
    let mixture = try #require(block.description.feedForward?.mixture)
    let prepared = PreparedBlock(block, positions: 32)
    var sums = [Double](repeating: 0, count: mixture.experts)
    var tokens = sums
    for states in hidden {
      var state = try prepared.start(states)
      try prepared.advance(&state)
      try prepared.advance(&state)
      let input = try #require(state.input)
      func apply(_ name: LinearName, _ x: Matrix) -> Matrix {
        var y = x.times(transposed: block[name].weight.dense())
        if let bias = block[name].bias { y.add(row: bias) }
        return y
      }
      let scores = apply(mixture.router, input)
      for token in 0..<input.rows {
        let powers = (0..<mixture.experts).map { exp(Double(scores[token, $0])) }
        let chosen = powers.indices.sorted { powers[$0] > powers[$1] }.prefix(mixture.expertsPerToken)
        let total = mixture.normalizesWeights ? chosen.reduce(0) { $0 + powers[$1] } : powers.reduce(0, +)
        for expert in chosen {
          let network = try #require(block.description.feedForward).expert(expert)
          let row = input.rows(token..<token + 1)
          let (gate, up) = (apply(network.readers[0], row).elements, apply(network.readers[1], row).elements)
          let inner = zip(gate, up).map { gate, up in
            guard case .clampedSwiglu(let gain, let limit)? = block.description.feedForward?.activation else {
              return Float(Double(gate) / (1 + exp(-Double(gate))) * Double(up))
            }
            let clamped = Double(min(gate, limit))
            return Float(clamped / (1 + exp(-Double(gain) * clamped)) * Double(max(-limit, min(up, limit)) + 1))
          }
          let output = apply(network.down, Matrix(rows: 1, columns: up.count, elements: inner)).elements
          sums[expert] += powers[expert] / total * output.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
          tokens[expert] += 1
        }
      }
    }
    let router = block.prefix + mixture.router.rawValue
    for expert in 0..<mixture.experts {
      let expected = sums[expert] / max(1, tokens[expert])
      #expect(abs(try #require(swept.metric("score_\(expert)", of: router)) - expected) < 1e-4 * max(expected, 1e-3))
    }
    // The lowest score went, and the router's rows with it.
    let gone = try #require(sums.indices.min { sums[$0] / max(1, tokens[$0]) < sums[$1] / max(1, tokens[$1]) })
    let after = try swept.model.block(index)
    #expect(after.description.feedForward?.mixture?.experts == mixture.experts - 1)
    let kept = (0..<mixture.experts).filter { $0 != gone }
    for (place, expert) in kept.enumerated() {
      let (new, old) = (after.description.feedForward!.expert(place), block.description.feedForward!.expert(expert))
      #expect(after[new.down].weight.dense() == block[old.down].weight.dense())
      let (scoring, scored) = (after[mixture.router].weight.dense(), block[mixture.router].weight.dense())
      #expect(scoring.rows(place..<place + 1) == scored.rows(expert..<expert + 1))
    }
    #expect(Set(after.linears.keys) == Set(after.description.linearShapes.keys))
  }

  /// An expert that no token is sent to goes first and is not missed.
  @Test(arguments: [PruneExperts.Criterion.reap, .frequency]) func whatNobodyUsesIsNotMissed(criterion: PruneExperts.Criterion) async throws
  {
    let config = try Families.configuration("mixtral").replacing(/"num_experts_per_tok": *2/, with: "\"num_experts_per_tok\":1")
    var checkpoint = try EditableCheckpoint(config)
    for layer in 0..<2 {
      let gate = "model.layers.\(layer).block_sparse_moe.gate.weight"
      let rows = try #require(checkpoint[gate]).floats()
      // The mean of the others' scores is never the highest.
      checkpoint.edit(gate) { row, column, value in row == 2 ? (rows[column] + rows[32 + column] + rows[96 + column]) / 3 : value }
    }
    let model = try checkpoint.model()
    let swept = try await Swept([.pruneExperts(criterion: criterion)], on: model, sequences: Self.sequences)
    #expect(swept.model.description.blocks.allSatisfy { $0.feedForward?.mixture?.experts == 3 })
    #expect(try drift(model, swept.model) < 1e-5)
  }

  /// A number that an expert's weight is multiplied by goes and stays with the expert.
  @Test func numbersOfExpertsStayWithThem() async throws {
    let (model, swept) = try await pruned("gemma4-moe") { $0.criterion = .magnitude }
    let name = "router.per_expert_scale"
    for index in model.description.blocks.indices {
      let (before, after) = (try model.block(index), try swept.model.block(index))
      let feedForward = try #require(before.description.feedForward)
      let downs = (0..<4).map { before[feedForward.expert($0).down].weight.dense() }
      let kept = try (0..<3).map { try #require(downs.firstIndex(of: after[feedForward.expert($0).down].weight.dense())) }
      let (old, new) = (try #require(before.parameters[name]).floats(), try #require(after.parameters[name]).floats())
      #expect(new == kept.map { old[$0] } && Set(kept).count == 3)
    }
  }

  private static let orders = [["prune_experts: { experts: 2 }", "gptq: { bits: 4, group_size: 32 }"]].flatMap { [$0, $0.reversed()] }

  @Test(arguments: Families.mixtures + Families.correctedMixtures + Families.unusualMixtures, orders) func whatIsWrittenSaysSo(
    _ name: String, passes: [String]
  )
    async throws
  {
    try await Places.withTemporaryDirectory { directory in
      let (source, output) = (directory.appending(path: "model"), directory.appending(path: "out"))
      try await TinyModel.write(to: source, Families.configuration(name), dtype: .bfloat16)
      try TinyModel.write(tokens: Self.sequences.flatMap { $0 }, to: directory.appending(path: "tokens.npy"))
      let yaml = """
        calibration: { tokens: tokens.npy, sequences: 8, length: 32 }
        passes:
          - \(passes[0])
          - \(passes[1])
        output: { format: compressed-tensors }
        """
      let recipe = try Recipe(yaml: yaml, file: "experts.yaml", passes: .standard)
      _ = try await Compressor(recipe: recipe, bases: [directory], memoryLimit: 1 << 30).run(try Checkpoint(source), to: output)
      let written = try Model(try Checkpoint(output))
      #expect(written.description.blocks.allSatisfy { $0.feedForward?.mixture?.experts ?? 2 == 2 })
      #expect(try written.logits(of: Self.sequences[0]).elements.allSatisfy(\.isFinite))
    }
  }

  @Test func whatDoesNotFitIsRefused() throws {
    var few = PruneExperts()
    few.experts = 1
    let tooFew = #expect(throws: PipelineError.self) { try Pipeline([few]).plan(for: Families.model("olmoe")) }
    #expect(tooFew?.description.contains("every token is sent to 2 of them") == true)
    var all = PruneExperts()
    all.experts = 4
    let nothing = #expect(throws: PipelineError.self) { try Pipeline([all]).plan(for: Families.model("olmoe")) }
    #expect(nothing?.description.contains("4 to be left: the model has 4") == true)
    let none = #expect(throws: PipelineError.self) { try Pipeline([.pruneExperts()]).plan(for: TinyModel.model()) }
    #expect(none?.description.contains("no mixture of experts") == true)
  }
}
