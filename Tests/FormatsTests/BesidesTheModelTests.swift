import Foundation
import TestSupport
import Testing

@testable import CompressKit

/// What a checkpoint holds besides the model, and what its configuration says of layers one by one, where passes change the model.
struct BesidesTheModelTests {
  private static let extra: [(name: String, shape: [Int])] = [
    ("model.layers.2.eh_proj.weight", [32, 64]), ("model.layers.2.enorm.weight", [32]), ("mtp.fc.weight", [32, 64]),
    ("model.mtp_layers.0.norm.weight", [32]),
  ]

  /// A tiny Llama with more in its file.
  private func withModel(
    _ more: [(name: String, shape: [Int])], config: String = TinyModel.config, _ body: (Checkpoint, URL) async throws -> Void
  ) async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      let writer = try SafetensorsWriter(to: source)
      let added = more.map { name, shape in
        NamedTensor(
          name: name, tensor: Tensor((0..<shape.reduce(1, *)).map { TinyModel.element(name, $0) }, shape: shape, dtype: .bfloat16))
      }
      try await writer.append(try TinyModel.tensors(try ModelConfig(text: config.utf8), dtype: .bfloat16) + added)
      try await writer.finish(files: [CheckpointFile("config.json", .text(config))])
      try TinyModel.write(tokens: TinyModel.sequences(4, length: 32).flatMap { $0 }, to: source.appending(path: "t.npy"))
      try await body(try Checkpoint(source), directory.appending(path: "out"))
    }
  }

  private func compressor(_ passes: String, format: String = "safetensors", strict: Bool = false) throws -> Compressor {
    let yaml = "calibration: { tokens: t.npy, sequences: 4, length: 32 }\npasses: [ \(passes) ]\noutput: { format: \(format) }"
    return Compressor(recipe: try Recipe(yaml: yaml, file: "r.yaml", passes: .standard), strict: strict, overwrite: true)
  }

  private static let counted = TinyModel.config.replacing(
    "\"bos_token_id\":1", with: "\"bos_token_id\":1,\"num_nextn_predict_layers\":1,\"mtp_num_hidden_layers\":2,\"mtp_loss\":3")

  @Test(arguments: [
    "{ rotate: {} }", "{ slicegpt: { hidden: 24 } }", "{ prune_width: { feed_forward: 32 } }",
    "{ prune_depth: { count: 1, criterion: magnitude } }", "{ gqa: {} }",
  ])
  func predictionsGoWithWhatTheyRead(_ passes: String) async throws {
    try await withModel(Self.extra, config: Self.counted) { checkpoint, output in
      let report = try await compressor(passes).run(checkpoint, to: output)
      #expect(
        report.remarks.contains {
          $0.contains("4 tensors of multi-token prediction") && $0.contains("num_nextn_predict_layers, mtp_num_hidden_layers becomes 0")
        })
      let written = try Checkpoint(output)
      #expect(Set(written.tensors.names).isDisjoint(with: Self.extra.map(\.name)) && report.carriedTensors.isEmpty)
      #expect(written.config.json["num_nextn_predict_layers"]?.integer == 0 && written.config.json["mtp_num_hidden_layers"]?.integer == 0)
      #expect(written.config.json["mtp_loss"]?.integer == 3)
      #expect(throws: UnwantedFallback.self) { try compressor(passes, strict: true).plan(checkpoint) }
    }
  }

  @Test(arguments: ["{ rtn: { group_size: 32 } }", "{ rotate: { hidden: none } }", "{ smoothquant: {} }, { rtn: { group_size: 32 } }"])
  func predictionsStayWhereNothingTheyReadChanges(_ passes: String) async throws {
    try await withModel(Self.extra, config: Self.counted) { checkpoint, output in
      let report = try await compressor(passes, strict: true).run(checkpoint, to: output)
      #expect(Set(report.carriedTensors) == Set(Self.extra.map(\.name)))
      let written = try Checkpoint(output)
      for (name, _) in Self.extra { #expect(try written.tensors.tensor(name).bytes == checkpoint.tensors.tensor(name).bytes) }
      #expect(written.config.json["num_nextn_predict_layers"]?.integer == 1)
    }
  }

  @Test func whatElseReadsTheHiddenStatesStopsARotation() async throws {
    let more = [(name: "multi_modal_projector.weight", shape: [32, 16]), (name: "vision_tower.fc.weight", shape: [8, 16])]
    try await withModel(more) { checkpoint, _ in
      for passes in ["{ rotate: {} }", "{ slicegpt: { hidden: 24 } }"] {
        #expect { try compressor(passes).plan(checkpoint) } throws: {
          "\($0)".contains("1 tensors beside the model") && "\($0)".contains("multi_modal_projector.weight")
        }
      }
      for passes in ["{ rotate: { hidden: none } }", "{ prune_width: { feed_forward: 32 } }"] {
        let plan = try compressor(passes).plan(checkpoint)
        #expect(plan.remarks.isEmpty)
      }
    }
  }

  // MARK: Layers one by one

  private func pruned(_ config: String, count: Int = 1) async throws -> (
    json: JSON, kept: [Int], model: ModelDescription, original: ModelDescription
  ) {
    var found: (json: JSON, kept: [Int], model: ModelDescription, original: ModelDescription)?
    try await withModel([], config: config) { checkpoint, output in
      let report = try await compressor("{ prune_depth: { count: \(count), criterion: magnitude } }").run(checkpoint, to: output)
      let written = try Checkpoint(output)
      let kept = report.layers.compactMap { $0.metrics["original_block"].map { Int($0) } }.sorted()
      found = (written.config.json, kept, try Model(written).description, try Model(checkpoint).description)
    }
    return try #require(found)
  }

  private func config(_ family: String, layers: Int, _ change: (inout JSON) -> Void) throws -> String {
    var json = try #require(try Families.fixture(family)["config"])
    json["num_hidden_layers"] = .integer(layers)
    change(&json)
    return json.text()
  }

  private func list(_ values: [Int]) -> JSON { .array(values.map { .integer($0) }) }

  @Test func listsWithAnEntryForEachLayerAreShortened() async throws {
    let rotates = [1, 0, 1, 1, 0]
    let text = try config("smollm3", layers: 5) { json in
      json["no_rope_layers"] = list(rotates)
      json["layer_names"] = .array(["a", "b", "c", "d", "e"].map { .string($0) })
      json["eos_token_id"] = list([1, 2, 3, 4, 5])
    }
    let found = try await pruned(text, count: 2)
    #expect(found.kept.count == 3 && found.json["num_hidden_layers"]?.integer == 3)
    #expect(found.json["no_rope_layers"] == list(found.kept.map { rotates[$0] }))
    #expect(found.json["layer_names"]?.elements?.compactMap(\.string) == found.kept.map { ["a", "b", "c", "d", "e"][$0] })
    #expect(found.json["eos_token_id"] == list([1, 2, 3, 4, 5]))
    for (place, layer) in found.kept.enumerated() {
      #expect(found.model.blocks[place].attention?.rotary == found.original.blocks[layer].attention?.rotary)
    }
  }

  /// Where a rule over the numbers of layers said it, a list has to.
  @Test(arguments: ["smollm3", "gemma2", "gemma3", "qwen2-window", "qwen3-moe"]) func rulesBecomeLists(_ family: String) async throws {
    for count in 1...3 {
      let text = try config(family, layers: 7) { json in
        json["no_rope_layers"] = nil
        if family == "gemma3" { json["sliding_window_pattern"] = .integer(3) }
        if family == "qwen2-window" { json["max_window_layers"] = .integer(3) }
        if family == "qwen3-moe" { (json["mlp_only_layers"], json["decoder_sparse_step"]) = (list([3]), .integer(2)) }
      }
      let found = try await pruned(text, count: count)
      for (place, layer) in found.kept.enumerated() {
        var expected = found.original.blocks[layer]
        expected.prefix = found.model.blocks[place].prefix
        #expect(found.model.blocks[place] == expected, "\(family) \(place) from \(layer)")
      }
    }
  }

  @Test func aModelInsideAnotherKeepsItsConfigurationThere() async throws {
    let inner = try config("gemma3", layers: 4) { $0["tie_word_embeddings"] = .bool(true) }
    let text = "{\"model_type\":\"gemma3\",\"mm_tokens_per_image\":4,\"text_config\":\(inner)}"
    let found = try await pruned(text, count: 2)
    #expect(found.json["num_hidden_layers"] == nil && found.json["text_config"]?["num_hidden_layers"]?.integer == 2)
    #expect(found.json["mm_tokens_per_image"]?.integer == 4 && found.model.blocks.count == 2)
  }
}
