import CompressKit
import Foundation
import TestSupport
import Testing

/// A changed description, spelled as a configuration.
@Suite struct RespellingTests {
  private let catalog = ArchitectureCatalog.standard

  private func spelled(_ config: String, _ change: (inout ModelDescription) -> Void) throws -> ModelConfig {
    let config = try ModelConfig(text: config.utf8)
    var description = try catalog.describe(config)
    change(&description)
    let spelled = try catalog.configuration(of: description, in: config)
    #expect(try catalog.describe(spelled) == description)
    return spelled
  }

  @Test func whatHasNotChangedIsLeftAlone() throws {
    #expect(try spelled(TinyModel.config) { _ in } == ModelConfig(text: TinyModel.config.utf8))
  }

  @Test func sizesAreSetWhereTheyDiffer() throws {
    let json = try spelled(TinyModel.config) { model in
      model.hiddenSize = 24
      model.blocks.removeLast()
      model.blocks[0].hiddenSize = 24
      model.blocks[0].feedForward?.size = 40
      model.blocks[0].attention?.heads = 2
      model.blocks[0].attention?.keyValueHeads = 1
    }.json
    #expect(json["hidden_size"]?.integer == 24 && json["intermediate_size"]?.integer == 40 && json["num_hidden_layers"]?.integer == 1)
    #expect(json["num_attention_heads"]?.integer == 2 && json["num_key_value_heads"]?.integer == 1)
    // 24 / 2 is no longer the size of a head.
    #expect(json["head_dim"]?.integer == 8)
    #expect(json["vocab_size"]?.integer == 64 && json["rms_norm_eps"] == .number("1e-05"))
  }

  @Test func biasesAndEpsilonAreSaid() throws {
    let json = try spelled(TinyModel.config) { model in
      model.normEpsilon = 1.3e-5
      for index in model.blocks.indices {
        model.blocks[index].normEpsilon = 1.3e-5
        model.blocks[index].feedForward?.hasBias = true
        model.blocks[index].attention?.hasProjectionBias = true
        model.blocks[index].attention?.hasOutputBias = true
      }
    }.json
    #expect(json["mlp_bias"]?.bool == true && json["attention_bias"]?.bool == true && json["rms_norm_eps"]?.double == 1.3e-5)
  }

  @Test func windowsStayWithTheirLayers() throws {
    let config = TinyModel.config.replacing("\"llama\"", with: "\"qwen3\"")
      .replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":3")
      .replacing(
        "\"bos_token_id\":1",
        with:
          "\"head_dim\":8,\"use_sliding_window\":true,\"sliding_window\":16,\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"]"
      )
    let json = try spelled(config) { model in
      model.blocks.remove(at: 0)
      for index in 0..<2 { model.blocks[index].prefix = "model.layers.\(index)." }
    }.json
    #expect(json["layer_types"]?.elements?.compactMap(\.string) == ["sliding_attention", "full_attention"])
  }

  /// A file may spell names as those of a part of a larger model; its configuration does not say so.
  @Test(arguments: ["", "language_model.model.", "model.language_model."]) func namesMayBeginOtherwise(prefix: String) throws {
    let config = try ModelConfig(text: TinyModel.config.utf8)
    let tensors = try TinyModel.tensors(config).map { named in
      NamedTensor(name: named.name.hasPrefix("model.") ? prefix + named.name.dropFirst("model.".count) : named.name, tensor: named.tensor)
    }
    let model = try Model(Checkpoint(directory: Places.root, config: config, tensors: MemoryTensorSource(tensors)))
    var smaller = model.description
    #expect(smaller.blocks[0].prefix == prefix + "layers.0.")
    smaller.blocks.removeLast()
    let written = try catalog.configuration(of: smaller, in: config)
    #expect(try catalog.describe(written).blocks.count == 1 && written.json["num_hidden_layers"]?.integer == 1)
    #expect(try catalog.configuration(of: model.description, in: config) == config)
  }

  @Test func layersThatDifferAreRefused() throws {
    for (change, words) in [
      ({ $0.hiddenSize = 30 }, "a hidden size of 30 goes with 4 heads"),
      ({ $0.blocks[1].feedForward?.size = 40 }, "model.layers.1 has 40 feed-forward channels"),
      ({ $0.blocks[1].attention?.heads = 2 }, "model.layers.1 has 2 attention heads"),
      ({ $0.blocks[0].attention?.hasOutputBias = true }, "model.layers.0 differs"),
    ] as [((inout ModelDescription) -> Void, String)] {
      let error = #expect(throws: CheckpointError.self) { try spelled(TinyModel.config, change) }
      #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    }
  }

  /// A pass that makes one block narrower and tells nobody.
  private struct Sneaking: BlockPass {
    static let name = "sneaking"
    var usesCalibration: Bool { false }

    func run(on block: inout Block, in context: PassContext) throws {
      guard block.index == 0 else { return }
      for name in ["mlp.gate_proj", "mlp.up_proj"] as [LinearName] { block[name].weight = block[name].weight.dense().rows(0..<40) }
      let down = block["mlp.down_proj"].weight.dense().transposed().rows(0..<40).transposed()
      block["mlp.down_proj"].weight = down
      block.description.feedForward?.size = 40
    }
  }

  @Test func preflightRefusesWhatWasNotAnnounced() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await TinyModel.write(to: source)
      let recipe = try Recipe(
        yaml: "passes:\n  - sneaking: {}\noutput: { format: safetensors }\n", file: "r.yaml", passes: .standard.adding(Sneaking.self))
      let output = directory.appending(path: "out")
      let error = await #expect(throws: CheckpointError.self) {
        try await Compressor(recipe: recipe).run(try Checkpoint(source), to: output)
      }
      #expect(error?.description.contains("no pass had announced") == true)
      #expect(!FileManager.default.fileExists(atPath: output.path))
    }
  }
}
