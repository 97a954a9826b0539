import CompressKit
import Foundation
import TestSupport
import Testing

/// Readers of text against damaged files: configurations, indices, recipes.
@Suite(.serialized) struct UpperFuzzTests {
  @Test(arguments: targets) func survives(_ target: FuzzTarget) throws { try target.attack(files: 1500) }

  private static func files(in folder: String, _ suffix: String) throws -> [Data] {
    let directory = Places.root.appending(path: folder)
    return try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == suffix }.sorted { $0.path < $1.path }.map { try Data(contentsOf: $0) }
  }

  private static let configurations: @Sendable () throws -> [Data] = {
    let scaled = """
      {"model_type":"llama","vocab_size":64,"hidden_size":32,"intermediate_size":64,"num_hidden_layers":2,"num_attention_heads":4,
       "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
       "original_max_position_embeddings":8192},"rope_theta":500000.0,"tie_word_embeddings":true}
      """
    return [Data(TinyModel.config.utf8), Data(scaled.utf8)]
      + (try [Data(contentsOf: Places.pocketLlama.appending(path: "config.json"))])
  }

  private static let soundTensors = Result {
    MemoryTensorSource(try TinyModel.tensors(try ModelConfig(text: TinyModel.config.utf8)))
  }

  static let targets: [FuzzTarget] = [
    FuzzTarget(
      name: "config.json", suffix: "json", corpus: configurations,
      read: { _ = try ArchitectureCatalog.standard.describe(try ModelConfig(contentsOf: $0)) }, allows: { $0 is CheckpointError }),
    FuzzTarget(
      name: "config.json beside weights", suffix: "json", corpus: { [Data(TinyModel.config.utf8)] },
      read: { url in
        // What a sound model's tensors are opened, planned and estimated with.
        let config = try ModelConfig(contentsOf: url)
        let checkpoint = Checkpoint(directory: url.deletingLastPathComponent(), config: config, tensors: try soundTensors.get())
        let recipe = try Recipe(yaml: "passes: [ { rtn: { group_size: 32 } } ]", file: "recipe.yaml", passes: .standard)
        _ = try Compressor(recipe: recipe).plan(checkpoint)
      }, allows: { $0 is CheckpointError || $0 is RecipeError || $0 is InvalidOption }),
    FuzzTarget(
      name: "kerashub-config", suffix: "json",
      corpus: { [try Data(contentsOf: Places.root.appending(path: "Tests/CheckpointIOTests/Fixtures/kerashub-llama3/config.json"))] },
      read: { url in
        // A preset is a directory: the configuration under attack beside weights that are sound.
        let directory = url.deletingLastPathComponent().appending(path: "preset")
        let weights = directory.appending(path: "model.weights.h5")
        if !FileManager.default.fileExists(atPath: weights.path) {
          try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
          let sound = Places.root.appending(path: "Tests/CheckpointIOTests/Fixtures/kerashub-llama3/model.weights.h5")
          try FileManager.default.copyItem(at: sound, to: weights)
        }
        try Data(contentsOf: url).write(to: directory.appending(path: "config.json"))
        _ = try Model(try Checkpoint(directory))
      }, allows: { $0 is CheckpointError }),
    FuzzTarget(
      name: "recipe", suffix: "yaml", corpus: { try files(in: "Recipes", "yaml") },
      read: { url in
        // A recipe is text: what is not UTF-8 is refused before it is parsed.
        guard let text = String(validating: try Data(contentsOf: url), as: UTF8.self) else { return }
        _ = try Recipe(yaml: text, file: "recipe.yaml", passes: .standard)
      }, allows: { $0 is RecipeError }),
  ]
}
