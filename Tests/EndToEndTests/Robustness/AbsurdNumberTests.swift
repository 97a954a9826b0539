import CompressKit
import Foundation
import TestSupport
import Testing

/// Numbers that no model and no request has: each is refused by name, before anything is allocated for it.
@Suite struct AbsurdNumberTests {
  @Test(arguments: [
    ("num_hidden_layers", "1099511627776"), ("num_hidden_layers", "9000"), ("num_attention_heads", "4611686018427387904"),
    ("num_attention_heads", "16777216"), ("head_dim", "4611686018427387904"), ("head_dim", "8388608"), ("num_key_value_heads", "0"),
    ("num_key_value_heads", "-2"), ("hidden_size", "4611686018427387904"), ("hidden_size", "0"),
    ("intermediate_size", "9223372036854775807"),
    ("vocab_size", "4611686018427387904"), ("vocab_size", "-1"), ("max_position_embeddings", "9223372036854775807"),
    ("rope_theta", "-1"), ("rope_theta", "0"), ("rope_theta", "1e999"), ("rms_norm_eps", "-1"), ("partial_rotary_factor", "1e300"),
    ("rope_scaling", #"{"rope_type":"dynamic","factor":2.0}"#),
    ("rope_scaling", #"{"rope_type":"yarn","factor":1e308,"original_max_position_embeddings":1e300}"#),
  ])
  func inTheConfiguration(key: String, value: String) async throws {
    try await Job.withTinyModel { job in
      var config = try ModelConfig(text: Job.config.utf8)
      config.json[key] = try JSON(parsing: value.utf8)
      if value.contains("dynamic") { config.json["max_position_embeddings"] = .number("1e300") }
      try Data(config.json.text().utf8).write(to: job.model.appending(path: "config.json"))
      try await job.expectFailure(65, saying: "error: ")
      let inspected = try await Command.run(
        ["eval", job.model.path, "--tokens", "evaluation.npy", "--window", "32", "--progress", "none"], in: job.working)
      #expect(inspected.status == 65, "\(inspected.status) \(inspected.errors)")
    }
  }

  /// The counts and periods of other families, which are divided by.
  @Test(arguments: [
    ("gemma3", "sliding_window_pattern", "0"), ("gemma3", "sliding_window", "-4"), ("gemma3", "sliding_window", "0"),
    ("gemma4", "sliding_window", "0"), ("gemma4", "global_head_dim", "0"), ("gemma4", "num_global_key_value_heads", "0"),
    ("gemma4", "global_head_dim", "4611686018427387904"),
    ("gemma4", "per_layer_config", "{\"1\":{\"head_dim\":4611686018427387904}}"),
    ("smollm3", "no_rope_layer_interval", "0"), ("qwen2-moe", "decoder_sparse_step", "0"), ("qwen2-moe", "num_experts", "1099511627776"),
    ("qwen2-moe", "num_experts_per_tok", "4611686018427387904"), ("qwen2-moe", "moe_intermediate_size", "0"),
    ("mixtral", "num_local_experts", "-1"), ("gpt2", "n_inner", "0"), ("gpt2", "n_layer", "1099511627776"),
    ("opt", "ffn_dim", "4611686018427387904"),
    ("falcon-40b", "num_kv_heads", "0"), ("bert", "type_vocab_size", "4611686018427387904"),
    ("bert", "max_position_embeddings", "9223372036854775807"),
  ])
  func ofOtherFamilies(family: String, key: String, value: String) throws {
    var config = try ModelConfig(text: Families.configuration(family).utf8)
    config.json[key] = try JSON(parsing: value.utf8)
    #expect(throws: CheckpointError.self) { try ArchitectureCatalog.standard.describe(config) }
  }

  /// Whatever stands in place of any whole number: an error, or a description whose sizes are numbers.
  @Test(arguments: Families.names) func inPlaceOfEveryNumber(family: String) throws {
    let config = try ModelConfig(text: Families.configuration(family).utf8)
    for member in config.json.members ?? [] where member.value.integer != nil {
      for value in [-1, 0, 1, 3, 7, 1 << 20, 1 << 24, 1 << 62] {
        var changed = config
        changed.json[member.key] = .integer(value)
        // What is refused is refused by name; what is not must not overflow behind it.
        guard let description = try? ArchitectureCatalog.standard.describe(changed) else { continue }
        for block in description.blocks.prefix(4) {
          #expect(Set(block.inputGroups.flatMap(\.linears)) == Set(block.linearShapes.keys), "\(member.key) = \(value)")
          for mixer in block.mixers {
            #expect(mixer.stateSize(tokens: 1) >= 0 && mixer.contextSize > 0, "\(member.key) = \(value)")
          }
        }
      }
    }
  }

  @Test func amongTheOptions() async throws {
    try await Job.withTinyModel { job in
      let huge = "9223372036854775807"
      for option in ["calibration.sequences", "calibration.length", "evaluation.window", "passes.gptq.group_size", "passes.gptq.refine"] {
        try await job.expectFailure(
          64, saying: option.replacing("passes.", with: "").split(separator: ".").last.map(String.init) ?? "",
          settings: ["\(option)=\(huge)"])
      }
      let eval = ["eval", job.model.path, "--tokens", "evaluation.npy", "--progress", "none"]
      for more in [
        ["--window", huge], ["--stride", huge], ["--chunk", huge], ["--retrieval", huge], ["--limit", huge], ["--threads", huge],
        ["--cache", "{ scheme: int, bits: 4, group_size: \(huge) }"], ["--cache", "{ scheme: kivi, residual: \(huge) }"],
      ] {
        let outcome = try await Command.run(eval + more, in: job.working)
        #expect(outcome.status == 64, "\(more): \(outcome.status) \(outcome.errors)")
      }
      // A number that could be meant, and that this machine has no memory for.
      let outcome = try await Command.run(eval + ["--window", "32", "--retrieval", "2000000000"], in: job.working)
      #expect(outcome.status == 65 && outcome.errors.contains("of memory"), "\(outcome.status) \(outcome.errors)")
    }
  }

  @Test(.enabled(if: FileManager.default.fileExists(atPath: Places.pocketLlama.path))) func aContinuationWithoutEnd() async throws {
    for (length, status) in [("9223372036854775807", Int32(64)), ("2147483647", 65)] {
      let outcome = try await Command.run([
        "generate", Places.pocketLlama.path, "--prompt", "Once", "--length", length, "--progress", "none",
      ])
      #expect(outcome.status == status, "\(length): \(outcome.status) \(outcome.errors)")
    }
  }
}
