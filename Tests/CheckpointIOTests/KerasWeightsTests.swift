import CheckpointIO
import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing

struct KerasWeightsTests {
  @Test(arguments: [("whole.keras", false), ("three.weights.h5", false), ("two.h5", true)])
  func readsWhatKerasWrites(_ file: String, _ isLegacy: Bool) throws {
    let weights = try KerasWeights(ForeignFiles.url(file))
    #expect(weights.isLegacy == isLegacy)
    try ForeignFiles.compare(weights, with: file)
  }

  @Test func containersAreTold() throws {
    for (file, container) in [("whole.keras", Container.keras), ("two.h5", .hdf5), ("arrays.npz", .npz), ("views.pt", .pytorch)] {
      #expect(try Container(of: ForeignFiles.url(file)) == container)
    }
    let config = try ForeignFiles.url("containers.json")
    #expect(throws: CheckpointError.self) { try Container(of: config) }
  }

  @Test func aPresetIsACheckpoint() throws {
    let checkpoint = try Checkpoint(ForeignFiles.url("kerashub-llama3"))
    #expect(checkpoint.config.modelType == "llama")
    #expect(checkpoint.config.json["tie_word_embeddings"]?.bool == false)
    #expect(checkpoint.tensors.names.count == 2 * 9 + 3)
    #expect(checkpoint.tensors.info("model.layers.1.mlp.down_proj.weight") == TensorInfo(dtype: .float32, shape: [16, 24]))
    // q_proj[h·d + j, i] = kernel[i, h, j].
    let weights = try KerasWeights(ForeignFiles.url("kerashub-llama3/model.weights.h5"))
    let kernel = try weights.tensor("layers/llama_transformer_decoder_1/_self_attention_layer/_query_dense/vars/0").floats()
    let matrix = try checkpoint.tensors.tensor("model.layers.1.self_attn.q_proj.weight").floats()
    for (i, h, j) in [(0, 0, 1), (3, 2, 1), (15, 3, 3)] { #expect(matrix[(h * 4 + j) * 16 + i] == kernel[i * 16 + h * 4 + j]) }
  }

  @Test func shardsOfAPreset() throws {
    try Places.withTemporaryDirectory { directory in
      let preset = try ForeignFiles.url("kerashub-llama3")
      try FileManager.default.copyItem(at: preset.appending(path: "config.json"), to: directory.appending(path: "config.json"))
      try FileManager.default.copyItem(
        at: preset.appending(path: "model.weights.h5"), to: directory.appending(path: "model_00000.weights.h5"))
      let index = directory.appending(path: "model.weights.json")
      try Data("{\"metadata\":{\"total_size\":1},\"weight_map\":{\"/layers/x/vars\":[\"model_00000.weights.h5\"]}}".utf8).write(to: index)
      let whole = try Checkpoint(preset)
      let sharded = try Checkpoint(directory)
      #expect(sharded.tensors.names == whole.tensors.names)
      try Data("{\"weight_map\":{\"/layers/x/vars\":\"../model.h5\"}}".utf8).write(to: index)
      #expect(throws: CheckpointError.self) { try Checkpoint(directory) }
    }
  }

  @Test func aPresetIsWrittenAsItWasRead() async throws {
    for name in ["kerashub-llama3", "kerashub-gemma"] {
      let preset = try ForeignFiles.url(name)
      let source = try Checkpoint(preset).tensors
      try await Places.withTemporaryDirectory { directory in
        let place = directory.appending(path: "written")
        let writer = try KerasHubWriter(to: place)
        for tensor in source.names { try await writer.append([NamedTensor(name: tensor, tensor: try source.tensor(tensor))]) }
        let config = try String(contentsOf: preset.appending(path: "config.json"), encoding: .utf8)
        try await writer.finish(files: [CheckpointFile("config.json", .text(config))])
        let (written, original) = (
          try KerasWeights(place.appending(path: "model.weights.h5")), try KerasWeights(preset.appending(path: "model.weights.h5"))
        )
        #expect(Set(written.names) == Set(original.names))
        for name in original.names {
          #expect(try written.tensor(name).bytes == original.tensor(name).bytes && written.info(name) == original.info(name), "\(name)")
        }
      }
    }
  }

  @Test func whatHasNoPlaceIsRefused() async throws {
    try await Places.withTemporaryDirectory { directory in
      let config = directory.appending(path: "config.json")
      try FileManager.default.copyItem(
        at: ForeignFiles.url("kerashub-llama3/model.weights.h5"), to: directory.appending(path: "model.weights.h5"))
      try Data("{\"class_name\":\"BertBackbone\",\"config\":{}}".utf8).write(to: config)
      #expect(throws: CheckpointError.self) { try Checkpoint(directory) }
      let other = try String(contentsOf: ForeignFiles.url("kerashub-llama3/config.json"), encoding: .utf8)
        .replacing("\"num_layers\": 2", with: "\"num_layers\": 1")
      try Data(other.utf8).write(to: config)
      #expect(ForeignFiles.complaint { try Checkpoint(directory).tensors }?.contains("none that is known") == true)
      let writer = try KerasHubWriter(to: directory.appending(path: "written"))
      try await writer.append([NamedTensor(name: "odd", tensor: Tensor([1], shape: [1], dtype: .float32))])
      await #expect(throws: CheckpointError.self) { try await writer.finish(files: [CheckpointFile("config.json", .text("{}"))]) }
      await writer.abandon()
    }
  }
}
