import CompressKit
import Foundation
import TestSupport
import Testing

/// A cache policy, from the recipe through the checkpoint into its score.
@Suite struct CachePolicyTests {
  private static let yaml = """
    passes:
      - kv_cache: { scheme: rotated, bits: 2, residual: 4, eviction: { method: streaming, budget: 12 } }
    evaluation: { tokens: evaluation.npy, window: 32, chunk: 4 }
    """

  private func eval(_ job: Job, _ model: URL, _ more: String...) async throws -> [String: Any] {
    let outcome = try await Command.run(
      ["eval", model.path, "--tokens", "evaluation.npy", "--window", "32", "--chunk", "4", "--json", "--progress", "none"] + more,
      in: job.working)
    #expect(outcome.status == 0, "\(outcome.errors)")
    return try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
  }

  @Test func itIsWrittenReadConvertedAndScored() async throws {
    try await Job.withTinyModel(Self.yaml) { job in
      let outcome = try await job.run()
      #expect(outcome.status == 0 && outcome.output.contains("key-value cache, bytes per token"), "\(outcome.errors)")
      let policies = try #require(try CachePolicyFile(in: job.output()))
      #expect(Set(policies.layers.keys) == ["model.layers.0", "model.layers.1"])
      let figures = try job.json("out", "report.json").object("evaluation")
      #expect(figures.number("chunk") == 4 && figures.number("kl_divergence") > 0)
      #expect(figures.number("cache_bytes_per_token_after") < figures.number("cache_bytes_per_token_before") / 2)
      let scored = try await eval(job, job.output(), "--retrieval", "3", "--reference", job.model.path)
      #expect(scored.number("perplexity") == figures.number("perplexity_after"))
      #expect(scored.number("reference_perplexity") == figures.number("perplexity_before"))
      for strings in ["random", "text"] {
        #expect(scored.object("retrieval").object(strings).number("tokens") == 9)
        #expect(scored.object("reference_retrieval").object(strings).number("gain").isFinite)
      }

      // The same policy, tried on the original.
      let tried = try await eval(
        job, job.model, "--cache", "{ scheme: rotated, bits: 2, residual: 4, eviction: { method: streaming, budget: 12 } }")
      #expect(tried.number("perplexity") == figures.number("perplexity_after"))

      // It travels with a conversion, and a recipe without the pass leaves it as it was.
      let converted = try await Command.run(
        ["convert", job.output().path, "--to", "gguf", "--output", job.output("converted").path, "--progress", "none"])
      #expect(converted.status == 0, "\(converted.errors)")
      #expect(try CachePolicyFile(in: job.output("converted")) == policies)
      let again = Job(directory: job.directory, model: job.output(), recipe: job.recipe, working: job.working)
      #expect(try await again.run(to: "again", settings: ["passes=[rtn]"]).status == 0)
      #expect(try CachePolicyFile(in: job.output("again")) == policies)
    }
  }

  @Test func mistakesAreFound() async throws {
    try await Job.withTinyModel { job in
      for (options, word) in [
        ("{ scheme: fp8 }", "calibrated"), ("{ schema: kivi }", "schema"), ("{ scheme: int, group_size: 5 }", "divide"),
      ] {
        let outcome = try await Command.run(
          ["eval", job.model.path, "--tokens", "evaluation.npy", "--cache", options, "--progress", "none"], in: job.working)
        #expect(outcome.status != 0 && outcome.errors.contains(word), "\(outcome.errors)")
      }
      try Data("{\"version\":1,\"layers\":{\"model.layers.9\":{}}}".utf8).write(to: job.model.appending(path: CachePolicyFile.name))
      let outcome = try await Command.run(["eval", job.model.path, "--tokens", "evaluation.npy"], in: job.working)
      #expect(outcome.status != 0 && outcome.errors.contains("kv_cache.json"), "\(outcome.errors)")
    }
  }
}
