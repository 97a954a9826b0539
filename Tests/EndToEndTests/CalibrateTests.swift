import CompressKit
import Foundation
import TestSupport
import Testing

/// Statistics saved once and used again.
struct CalibrateTests {
  private static let recipe = """
    calibration: { tokens: tokens.npy, sequences: 4, length: 16 }
    passes:
      - gptq: { bits: 4, group_size: 32 }
    """

  private func prepare(_ directory: URL) async throws -> URL {
    let model = directory.appending(path: "model")
    try await TinyModel.write(to: model)
    try TinyModel.write(tokens: TinyModel.sequences(4, length: 16).flatMap { $0 }, to: directory.appending(path: "tokens.npy"))
    let statistics = directory.appending(path: "statistics.h5")
    let outcome = try await Command.run(
      ["calibrate", model.path, "--tokens", "tokens.npy", "--sequences", "4", "--length", "16", "--output", statistics.path], in: directory)
    #expect(outcome.status == 0, "\(outcome.errors)")
    #expect(outcome.output.contains("4 sequences, 64 tokens"))
    return statistics
  }

  @Test func theyAreWhatARunWouldGather() async throws {
    try await Places.withTemporaryDirectory { directory in
      let file = try StatisticsFile(try await prepare(directory))
      let model = try Model(try Checkpoint(directory.appending(path: "model")))
      // The first group of the first block reads the embeddings, which anyone can sum.
      let block = try model.block(0)
      let table = try model.embedding()
      let states = try PreparedEmbedding(table)(TinyModel.sequences(4, length: 16).flatMap { $0 })
      let norm = try #require(block.norms["input_layernorm"])
      var sum = 0.0
      for row in 0..<states.rows {
        let values = (0..<states.columns).map { Double(states[row, $0]) }
        let scale = 1 / (values.reduce(0) { $0 + $1 * $1 } / Double(values.count) + 1e-5).squareRoot()
        sum += values[3] * scale * Double(norm[3]) * values[7] * scale * Double(norm[7])
      }
      let name = "model.layers.0." + block.inputGroups[0].linears[0].rawValue
      let hessian = try #require(try file.statistic(Hessian.self, of: name))
      #expect(hessian.tokens == 64 && hessian.skippedTokens == 0)
      #expect(abs(hessian.matrix[7, 3] - sum) < 1e-4 * max(1, abs(sum)))
      let magnitude = try #require(try file.statistic(InputMagnitude.self, of: name))
      #expect(abs(Double(magnitude.meanSquares[3]) * 64 - hessian.matrix[3, 3]) < 1e-3)
      #expect(try file.statistic(InputMaximum.self, of: name)?.values == magnitude.maxima)
      #expect(try file.statistic(InputNorm.self, of: name)?.meanSquares == magnitude.meanSquares)
      #expect(try file.statistic(Hessian.self, of: "absent") == nil)
    }
  }

  @Test func aRecipeReusesThem() async throws {
    try await Places.withTemporaryDirectory { directory in
      _ = try await prepare(directory)
      try Data(Self.recipe.utf8).write(to: directory.appending(path: "recipe.yaml"))
      func run(_ output: String, _ more: [String]) async throws -> Command.Outcome {
        try await Command.run(["--recipe", "recipe.yaml", "--model", "model", "--output", output] + more, in: directory)
      }
      let reused = try await run("reused", ["--set", "calibration.statistics=statistics.h5"])
      #expect(reused.status == 0, "\(reused.errors)")
      let report = try String(contentsOf: directory.appending(path: "reused/report.json"), encoding: .utf8)
      #expect(report.contains("not true-sequential"))
      let without = try await run("fresh", [])
      #expect(without.status == 0, "\(without.errors)")
      // The first group of the first block saw the same inputs in both runs; what comes after it did not.
      let (a, b) = (try Checkpoint(directory.appending(path: "reused")), try Checkpoint(directory.appending(path: "fresh")))
      let name = "model.layers.0.self_attn.q_proj.weight_packed"
      #expect(try a.tensors.tensor(name).bytes == b.tensors.tensor(name).bytes)
      // Other data, another model, a pass that needs more.
      let other = try await run("other", ["--set", "calibration.statistics=statistics.h5", "--set", "calibration.sequences=3"])
      #expect(other.status != 0 && other.error?.contains("another data") == true)
      let drift = try await run("drift", ["--set", "calibration.statistics=statistics.h5", "--set", "passes.gptq.drift_correction=0.5"])
      #expect(drift.status != 0 && drift.error?.contains("drift_correction") == true)
      let swapped = directory.appending(path: "swapped")
      try await TinyModel.write(to: swapped, dtype: .float32)
      let wrong = try await run("wrong", ["--model", "swapped", "--set", "calibration.statistics=statistics.h5"])
      #expect(wrong.status != 0 && wrong.error?.contains("another model") == true)
    }
  }
}
