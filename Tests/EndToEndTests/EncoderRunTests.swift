import CompressKit
import Foundation
import TestSupport
import Testing

/// Encoders through the real command.
struct EncoderRunTests {
  private static let config = """
    {"model_type":"bert","vocab_size":64,"hidden_size":128,"intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":4,
     "max_position_embeddings":64,"type_vocab_size":2,"hidden_act":"gelu","layer_norm_eps":1e-12}
    """

  private static func yaml(_ passes: String, evaluation: String = "tokens: evaluation.npy, window: 32") -> String {
    """
    calibration: { tokens: calibration.npy, sequences: 6, length: 32 }
    passes: [{ \(passes) }]
    evaluation: { \(evaluation) }
    """
  }

  private static let gptq = "gptq: { bits: 4, group_size: 128 }"

  private func summary(_ json: [String: Any]) -> [Double] { json.keys.sorted().map { json.number($0) } }

  @Test func hiddenStatesAreCompared() async throws {
    try await Job.withTinyModel(Self.yaml(Self.gptq), config: Self.config) { job in
      // As sentence-transformers lays a model out.
      let pooling = job.model.appending(path: "1_Pooling")
      try FileManager.default.createDirectory(at: pooling, withIntermediateDirectories: false)
      try Data("{}".utf8).write(to: pooling.appending(path: "config.json"))
      let modules = #"[{"idx":0,"path":""},{"idx":1,"path":"1_Pooling"},{"idx":2,"path":"2_Normalize"},{"idx":3,"path":"../model"}]"#
      try Data(modules.utf8).write(to: job.model.appending(path: "modules.json"))
      let outcome = try await job.run()
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(try job.bytes("out", "1_Pooling/config.json") == Data("{}".utf8))
      #expect(try job.bytes("out", "modules.json") == Data(modules.utf8))
      #expect(outcome.output.contains("cosine to the original, embeddings") && !outcome.output.contains("perplexity"))
      let report = try job.json("out", "report.json")
      #expect(report["evaluation"] == nil)
      let cosine = report.object("similarity").object("cosine")
      let pooled = cosine.object("pooled")
      #expect(pooled.number("mean") < 1 && pooled.number("mean") > 0.9 && pooled.number("minimum") <= pooled.number("fifth_percentile"))
      #expect(cosine.number("sequences") == 12 && cosine.number("tokens") == 384)
      // The same figures as the evaluation of its own.
      let evaluated = try await Command.run(
        [
          "eval", job.output().path, "--reference", job.model.path, "--tokens", "evaluation.npy", "--window", "32", "--json", "--progress",
          "none",
        ], in: job.working)
      #expect(evaluated.status == 0, "\(evaluated.errors)")
      let figures = try #require(try JSONSerialization.jsonObject(with: Data(evaluated.output.utf8)) as? [String: Any])
      #expect(figures["perplexity"] is NSNull && figures["kl_divergence"] is NSNull && figures["top1_agreement"] is NSNull)
      #expect(figures.number("windows") == 12)
      for (key, own) in [("pooled_cosine", "pooled"), ("token_cosine", "tokenwise")] {
        for (figure, recorded) in [("mean", "mean"), ("minimum", "minimum"), ("percentile_5", "fifth_percentile")] {
          #expect(abs(figures.object(key).number(figure) - cosine.object(own).number(recorded)) < 1e-12, "\(key) \(figure)")
        }
      }
      let inspected = try await Command.run(["inspect", job.output().path], in: job.working)
      #expect(inspected.output.contains("no head"))
    }
  }

  @Test func whatNeedsLogitsOrACacheIsRefused() async throws {
    try await Job.withTinyModel(Self.yaml(Self.gptq), config: Self.config) { job in
      func refused(_ arguments: [String], _ status: Int32, _ words: String...) async throws {
        let outcome = try await Command.run(arguments + ["--progress", "none"], in: job.working)
        #expect(outcome.status == status && outcome.output.isEmpty, "\(outcome.errors)")
        for word in words { #expect(outcome.error?.contains(word) == true, "\(outcome.errors) lacks \(word)") }
      }
      let eval = ["eval", job.model.path, "--tokens", "evaluation.npy", "--window", "32"]
      let both = eval + ["--reference", job.model.path]
      try await refused(eval, 64, "--reference", "encoder without logits")
      try await refused(both + ["--chunk", "8"], 64, "--chunk", "no key-value cache")
      try await refused(both + ["--retrieval", "8"], 64, "--retrieval", "no logits")
      try await refused(both + ["--cache", "{ scheme: int }"], 64, "no key-value cache")
      try await refused(["eval", job.model.path, "--tokens", "evaluation.npy", "--reference", job.model.path], 65, "learned 64 positions")
      try await refused(["generate", job.model.path, "--prompt", "a"], 65, "encoder", "no logits")
    }
  }

  @Test(arguments: [
    ("kv_cache: { scheme: int }", "no key-value cache"), ("kv_latents: {}", "no key-value cache"),
    ("gqa: { key_value_heads: 2 }", "no key-value cache"), ("allocate: { target: 4bpw }", "layer needs none"),
    ("low_rank: { ratio: 0.2, allocation: kl }", "encoder without"), ("prune_depth: { count: 1 }", "influence, magnitude and random"),
    ("prune_depth: { count: 1, criterion: influence, units: layers }", "norms on the residual stream itself"),
    ("prune_depth: { count: 1, criterion: influence, repair: gaps }", "norms on the residual stream itself"),
    ("prune_width: { ratio: 0.5, axis: hidden }", "LayerNorm"), ("slicegpt: { ratio: 0.5 }", "LayerNorm"), ("rotate: {}", "LayerNorm"),
    ("smoothquant: { strength: 0.5 }", "no norm of this model is read by linears alone"),
  ])
  func passesThatDoNotFitAreRefused(_ pass: String, _ words: String) async throws {
    try await Job.withTinyModel(Self.yaml(pass), config: Self.config) { job in try await job.expectFailure(64, saying: words) }
  }

  @Test func evaluationsThatDoNotFitAreRefusedBeforeTheSweep() async throws {
    try await Job.withTinyModel(Self.yaml(Self.gptq), config: Self.config) { job in
      try await job.expectFailure(64, saying: "no key-value cache", settings: ["evaluation.chunk=8"])
      try await job.expectFailure(65, saying: "learned 64 positions", settings: ["evaluation.window=65"])
    }
  }

  @Test(arguments: [
    "prune_depth: { count: 1, criterion: influence }", "prune_width: { axis: feed_forward, ratio: 0.2 }", "low_rank: { ratio: 0.2 }",
    "allocate: { target: 4bpw, sensitivity: layer, candidates: [{ bits: 4, group_size: 128 }, { bits: 3, group_size: 128 }] }",
    "wanda: { sparsity: 0.5 }", "hqq: { bits: 4, group_size: 128 }",
  ])
  func otherPassesWork(_ pass: String) async throws {
    try await Job.withTinyModel(Self.yaml(pass), config: Self.config) { job in
      // No runtime knows the zero points of hqq.
      let outcome = try await job.run(settings: ["output.format=\(pass.hasPrefix("a") ? "compressed-tensors" : "safetensors")"])
      #expect(outcome.status == 0, "\(outcome.errors)")
      let cosine = try job.json("out", "report.json").object("similarity").object("cosine").object("tokenwise")
      // Of a model with weights that mean nothing, half of the blocks leave little.
      #expect(cosine.number("mean") > (pass.hasPrefix("prune_depth") ? -1 : 0.2) && cosine.number("mean") < 1)
    }
  }
}
