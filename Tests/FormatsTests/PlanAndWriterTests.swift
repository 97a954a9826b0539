import Foundation
import TestSupport
import Testing

@testable import CompressKit

/// What the writer refuses, the plan refuses, and nothing else: asked of every pass, number format and output format.
struct PlanAndWriterTests {
  /// A Llama of widths that all group sizes divide, with a tokenizer, so that every format can describe it.
  private static let config = """
    {"model_type":"llama","vocab_size":320,"hidden_size":128,"intermediate_size":256,"num_hidden_layers":1,"num_attention_heads":4,
     "num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000.0,"max_position_embeddings":64,"tie_word_embeddings":false,
     "torch_dtype":"bfloat16","hidden_act":"silu"}
    """

  private static let numbers = [
    "bits: 4, group_size: 32", "bits: 4, group_size: 32, symmetric: false", "bits: 4, group_size: 32, symmetric: false, zero_point: real",
    "bits: 8, group_size: channel", "bits: 4, group_size: auto", "bits: 3, group_size: 64", "bits: 5, group_size: 32",
    "bits: 8, group_size: tensor",
    "bits: 8, group_size: channel, activations: int8", "bits: 8, group_size: channel, activations: int8_static", "numbers: fp8",
    "numbers: fp8, activations: fp8", "numbers: fp8, group_size: 128x128, activations: fp8_g128", "numbers: mxfp4", "numbers: mxfp8",
    "numbers: nvfp4", "numbers: nvfp4, activations: nvfp4",
  ]

  static let passes: [String] =
    numbers.map { "{ rtn: { \($0) } }" } + numbers.map { "{ gptq: { \($0) } }" } + [
      "{ hqq: { bits: 4, group_size: 32 } }", "{ hqq: { bits: 4, group_size: 32, zero_point: real } }",
      "{ rtn: { group_size: 32, layers: ['*', lm_head] } }", "{ rtn: { group_size: 32, layers: ['*', embed_tokens] } }",
      "{ rtn: { group_size: 32, layers: lm_head } }", "{ ggml: { type: q4_k_m } }", "{ ggml: { type: q8_0, layers: '*' } }",
      "{ rtn: { group_size: 32 } }, { lqer: { rank: 4 } }", "{ low_rank: { ratio: 0.3 } }", "{ low_rank: { ratio: 0.3, merge: true } }",
      "{ low_rank: { ratio: 0.3, rank_multiple: 32 } }, { rtn: { bits: 4, group_size: 32 } }", "{ kv_latents: {} }", "{ gqa: {} }",
      "{ magnitude: {} }", "{ sparsegpt: { quantize: { numbers: int, group_size: 32 } } }", "{ rotate: {} }, { rtn: { group_size: 32 } }",
      "{ awq: {} }, { rtn: { group_size: 32 } }", "{ kv_cache: { scheme: fp8 } }", "{ kv_cache: { scheme: kivi } }",
      "{ rtn: { group_size: 32 } }, { kv_cache: { scheme: int8 } }", "{ prune_width: { ratio: 0.3 } }", "{ slicegpt: {} }",
      "{ allocate: { target: 5bpw, sensitivity: layer, candidates: [{ bits: 4, group_size: 32 }, { bits: 5, group_size: 32 }] } }",
      "{ allocate: { target: 5bpw, sensitivity: layer, candidates: [{ bits: 4, group_size: 32 }, { bits: 8, group_size: 32 }] } }",
      "{ rtn: { group_size: 32, overrides: [{ layers: down_proj, numbers: nvfp4 }] } }",
    ]

  private static let text = "Plans are kept. "

  private func checkpoint(_ body: (Checkpoint) async throws -> Void) async throws {
    try await Places.withTemporaryDirectory { directory in
      let model = directory.appending(path: "model")
      try await TinyModel.write(to: model, Self.config)
      // Its vocabulary is larger than the model's, whose rows are then simply fewer than GGUF would list: so a small one is made.
      let letters = (0..<300).map { "\"t\($0)\": \($0)" }.joined(separator: ", ")
      let tokenizer =
        "{\"added_tokens\": [{\"id\": 300, \"content\": \"<s>\", \"special\": true}, {\"id\": 301, \"content\": \"</s>\", \"special\": true}], \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\(letters)}, \"merges\": []}}"
      try Data(tokenizer.utf8).write(to: model.appending(path: "tokenizer.json"))
      try TinyModel.write(tokens: TinyModel.sequences(3, length: 32).flatMap { $0 }, to: model.appending(path: "t.npy"))
      try await body(try Checkpoint(model))
    }
  }

  @Test(arguments: FormatCatalog.standard.names) func theyAgree(_ format: String) async throws {
    try await checkpoint { checkpoint in
      for passes in Self.passes {
        let yaml = "calibration: { tokens: t.npy, sequences: 2, length: 32 }\npasses: [ \(passes) ]\noutput: { format: \(format) }"
        let compressor = Compressor(recipe: try Recipe(yaml: yaml, file: "r.yaml", passes: .standard))
        var (refused, wrong) = (String?.none, String?.none)
        do { _ = try compressor.plan(checkpoint) } catch { refused = "\(error)" }
        do { try await write(compressor, checkpoint) } catch { wrong = "\(error)" }
        #expect((refused == nil) == (wrong == nil), "\(format) \(passes): the plan says \(refused ?? "yes"), the writer \(wrong ?? "yes")")
      }
    }
  }

  /// The sweep into the writer, without any plan before it.
  private func write(_ compressor: Compressor, _ checkpoint: Checkpoint) async throws {
    let format = try #require(FormatCatalog.standard[compressor.recipe.output.format])
    var model = try Model(checkpoint)
    model.scaleType = format.scaleType
    let pipeline = Pipeline(compressor.recipe.passes)
    let described = pipeline.prepared(model)
    let sink = Collected()
    _ = try await pipeline.run(on: model, options: SweepOptions(calibration: TinyModel.sequences(2, length: 32)), into: sink)
    let parts = await sink.parts
    let modules = parts.flatMap { format.modules(of: $0) }
    let settled = format.settled(for: modules)
    for part in parts { _ = try settled.encode(part) }
    var config = checkpoint.config
    if described.description.head != nil, try ArchitectureCatalog.standard.describe(config).head == nil {
      config.json["tie_word_embeddings"] = .bool(false)
    }
    var description = try pipeline.reshapings(of: described.description).last ?? described.description
    description.blocks = parts.decoders.map(\.description)
    config = try ArchitectureCatalog.standard.configuration(of: description, in: config)
    _ = try settled.configuration(of: modules, in: config)
  }

  private actor Collected: PartSink {
    var parts: [any ModelPart] = []
    func append(_ part: any ModelPart) { parts.append(part) }
  }
}
