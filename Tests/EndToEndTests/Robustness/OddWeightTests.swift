import CompressKit
import Foundation
import TestSupport
import Testing

/// Weights that are finite, and so odd that what is computed with them is not; or that some method divides by.
@Suite struct OddWeightTests {
  /// A change to the tensors of a tiny model.
  struct Oddity: Sendable, CustomTestStringConvertible {
    let name: String
    let change: @Sendable (String, Int, Float) -> Float
    var testDescription: String { name }

    init(_ name: String, _ change: @escaping @Sendable (String, Int, Float) -> Float) { (self.name, self.change) = (name, change) }
  }

  /// Where the first number that is not finite arises is known for those that end in an error.
  static let oddities: [Oddity] = [
    .init("one huge weight") { name, index, value in name.hasSuffix("0.mlp.down_proj.weight") && index == 5 ? 1e38 : value },
    .init("a huge norm") { name, _, value in name.hasSuffix("1.input_layernorm.weight") ? 1e38 : value },
    .init("a huge final norm") { name, _, value in name == "model.norm.weight" ? 3e38 : value },
    .init("huge linears") { name, _, value in name.contains("_proj") ? value * 1e19 : value },
    .init("a huge embedding") { name, _, value in name.contains("embed") ? value * 1e38 : value },
    .init("a huge head") { name, _, value in name.contains("lm_head") ? value * 1e38 : value },
    .init("a zero norm") { name, _, value in name.hasSuffix("0.post_attention_layernorm.weight") ? 0 : value },
    .init("zero everything") { _, _, _ in 0 },
    .init("tiny linears") { name, _, value in name.contains("_proj") ? value * 1e-37 : value },
    .init("one column far above the rest") { name, index, value in
      name.contains("q_proj") || name.contains("up_proj") ? index % 128 == 3 ? value * 1e5 : value : value
    },
    .init("one row far above the rest") { name, index, value in name.contains("v_proj") && index < 128 ? value * 1e7 : value },
    .init("a dead input") { name, index, value in name.contains("_proj") && index % 128 == 7 ? 0 : value },
    .init("constant linears") { name, _, value in name.contains("_proj") ? 0.25 : value },
  ]

  /// Every pass, with options that a test can afford, and what it needs beside it.
  static let passes = [
    "rtn: { bits: 4, group_size: 32 }", "rtn: { bits: 8, group_size: channel, activations: int8 }",
    "rtn: { bits: 4, symmetric: false, importance: activations, group_size: 32 }", "rtn: { numbers: nvfp4 }", "rtn: { numbers: mxfp4 }",
    "rtn: { numbers: fp8, activations: fp8_static }", "gptq: { bits: 4, group_size: 32, drift_correction: 0.5, refine: 2 }",
    "gptq: { bits: 2, group_size: 32, scales: full_range, order: group }", "hqq: { bits: 3, group_size: 32 }",
    "ggml: { type: q4_0, importance: activations }", "ggml: { type: q6_k }", "awq: { grid: 4 } | rtn: { bits: 4, group_size: 32 }",
    "smoothquant: {} | rtn: { bits: 8, group_size: channel, activations: int8 }", "rotate: {} | rtn: { bits: 4, group_size: 32 }",
    "rtn: { bits: 3, group_size: 32 } | lqer: { rank: 4 }", "allocate: { target: 4.5bpw, probes: 2 }",
    "magnitude: { sparsity: 0.5, refit: true }",
    "wanda: { sparsity: 0.5, allocation: owl }", "sparsegpt: { pattern: '2:4' }", "sparsegpt: { sparsity: 0.5, drift_correction: 0.5 }",
    "prune_width: { ratio: 0.25 }", "prune_width: { ratio: 0.25, axis: heads }", "prune_depth: { count: 1, probes: 2 }",
    "slicegpt: { ratio: 0.25 }",
    "low_rank: { ratio: 0.3 }", "low_rank: { ratio: 0.3, method: asvd }", "gqa: { key_value_heads: 1 }",
    "kv_latents: { heads_per_group: 2 }",
    "kv_cache: { scheme: fp8 }", "kv_cache: { scheme: kivi, bits: 2 }", "kv_cache: { scheme: rotated, bits: 4 }",
  ]

  /// Whatever a pass makes of odd weights, the command ends by itself: with a whole output, or with one error and nothing left.
  @Test(arguments: oddities) func everyPassComesToAnEnd(_ oddity: Oddity) async throws {
    try await Job.withTinyModel { job in
      let config = try ModelConfig(text: Job.config.utf8)
      let writer = try SafetensorsWriter(to: job.directory.appending(path: "odd"))
      try await writer.append(
        try TinyModel.tensors(config).map { named in
          let values = named.tensor.floats().enumerated().map { oddity.change(named.name, $0, $1) }
          return NamedTensor(name: named.name, tensor: Tensor(values, shape: named.tensor.shape, dtype: .float32))
        })
      try await writer.finish(files: [CheckpointFile("config.json", .text(Job.config))])
      var odd = job
      odd.model = job.directory.appending(path: "odd")
      for (index, pass) in Self.passes.enumerated() {
        let format =
          pass.contains("ggml")
          ? "gguf"
          : ["rtn", "gptq", "hqq", "allocate", "awq", "smooth", "kv_cache: { scheme: fp8"].contains { pass.hasPrefix($0) }
            && !pass.contains("real") ? "compressed-tensors" : "safetensors"
        let yaml = """
          calibration: { tokens: calibration.npy, sequences: 4, length: 32 }
          passes:
            - { \(pass.replacing(" | ", with: " }\n  - { ")) }
          output: { format: \(format) }
          evaluation: { tokens: evaluation.npy, window: 32 }
          """
        let recipe = job.directory.appending(path: "\(index).yaml")
        try Data(yaml.utf8).write(to: recipe)
        let outcome = try await odd.run(to: "\(index)", recipe: recipe, "--progress", "none", "--threads", "1")
        try check(outcome, "\(oddity.name), \(pass)", odd, output: "\(index)")
      }
      for arguments in [
        ["eval", odd.model.path, "--tokens", "evaluation.npy", "--window", "32"],
        ["eval", job.model.path, "--reference", odd.model.path, "--tokens", "evaluation.npy", "--window", "32"],
        ["eval", odd.model.path, "--tokens", "evaluation.npy", "--window", "32", "--cache", "{ scheme: kivi, bits: 2 }"],
      ] {
        let outcome = try await Command.run(arguments + ["--progress", "none"], in: job.working)
        try check(outcome, "\(oddity.name), \(arguments)", odd, output: nil)
        #expect(!outcome.output.contains("nan"), "\(outcome.output)")
      }
    }
  }

  private func check(_ outcome: Command.Outcome, _ what: String, _ job: Job, output: String?) throws {
    #expect([0, 64, 65].contains(outcome.status), "\(what): \(outcome.status) \(outcome.errors.suffix(400))")
    if outcome.status != 0 {
      let lines = outcome.errors.split(separator: "\n").filter { !$0.hasPrefix("note: ") }
      #expect(lines.first?.hasPrefix("error: ") == true && lines.count <= 2, "\(what): \(outcome.errors)")
      #expect(!outcome.errors.contains("nan"), "\(what): \(outcome.errors)")
    }
    guard let output else { return }
    #expect(FileManager.default.fileExists(atPath: job.output(output).path) == (outcome.status == 0), "\(what)")
  }

  /// The first place where a number is not finite is named, whether the model is compressed, scored or only compared with.
  @Test func theErrorSaysWhereItArose() async throws {
    let expected: [(oddity: String, words: [String])] = [
      ("one huge weight", ["model.layers.0", "mlp.down_proj"]), ("a huge norm", ["model.layers.1", "self_attn.q_proj"]),
      ("a huge final norm", ["head", "model.norm"]), ("huge linears", ["model.layers.0"]),
    ]
    try await Job.withTinyModel { job in
      for (name, words) in expected {
        let oddity = try #require(Self.oddities.first { $0.name == name })
        let model = try TinyModel.checkpoint(Job.config)
        let tensors = try TinyModel.tensors(model.config).map { named in
          let values = named.tensor.floats().enumerated().map { oddity.change(named.name, $0, $1 * 100) }
          return NamedTensor(name: named.name, tensor: Tensor(values, shape: named.tensor.shape, dtype: .float32))
        }
        let odd = try Model(Checkpoint(directory: model.directory, config: model.config, tensors: MemoryTensorSource(tensors)))
        let error = #expect(throws: NonFiniteActivation.self) {
          try Evaluator(window: 32).evaluate(odd, on: TinyModel.sequences(2, length: 32).flatMap { $0 })
        }
        for word in words { #expect(error.map { "\($0)" }?.contains(word) == true, "\(name): \(error.map { "\($0)" } ?? "none")") }
      }
    }
  }
}
