import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

struct CheckpointTests {
  @Test func opensADirectory() async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      try await TinyModel.write(to: place)
      let checkpoint = try Checkpoint(place)
      #expect(checkpoint.config.modelType == "llama")
      #expect(checkpoint.tensors.names.count == 21)
      #expect(checkpoint.tensors.info("model.embed_tokens.weight") == TensorInfo(dtype: .bfloat16, shape: [64, 32]))
      let weight = try checkpoint.tensors.tensor("model.norm.weight").floats()
      let expected = (0..<32).map { TinyModel.element("model.norm.weight", $0) }
      #expect(weight == expected.map(DType.bfloat16.rounded))
    }
  }

  @Test func saysWhatIsMissing() throws {
    try Places.withTemporaryDirectory { directory in
      let absent = directory.appending(path: "absent")
      #expect(throws: CheckpointError.missingFile(path: absent.path)) { try Checkpoint(absent) }
      #expect(throws: CheckpointError.missingFile(path: directory.appending(path: "config.json").path)) { try Checkpoint(directory) }
      try Data("{\"model_type\":\"llama\"}".utf8).write(to: directory.appending(path: "config.json"))
      #expect(throws: CheckpointError.missingFile(path: directory.appending(path: "model.safetensors").path)) { try Checkpoint(directory) }
      let file = directory.appending(path: "config.json")
      do throws(CheckpointError) { _ = try Checkpoint(file) } catch {
        guard case .unreadable(file.path, _) = error else {
          Issue.record("\(error)")
          return
        }
      }
    }
  }

  @Test func filesThatChangeAreNoticed() async throws {
    try await Places.withTemporaryDirectory { directory in
      let writer = try SafetensorsWriter(to: directory.appending(path: "model"), shardLimit: 4)
      for name in ["a", "b"] { try await writer.append([NamedTensor(name: name, tensor: Tensor([1], shape: [1], dtype: .float32))]) }
      try await writer.finish(files: [CheckpointFile("config.json", .text(#"{"model_type":"llama"}"#))])
      let checkpoint = try Checkpoint(directory.appending(path: "model"))
      #expect(
        Set(checkpoint.stamps.map { URL(filePath: $0.path).lastPathComponent }) == [
          "config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        ])
      try checkpoint.checkUnchanged()
      let shard = directory.appending(path: "model/model-00002-of-00002.safetensors")
      try FileManager.default.removeItem(at: shard)
      #expect(throws: CheckpointError.changed(path: shard.path, reason: "has vanished")) { try checkpoint.checkUnchanged() }
    }
  }

  @Test func errorsSayWhatToDoNext() {
    #expect(CheckpointError.exists(path: "x").hint?.contains("--overwrite") == true)
    #expect(
      CheckpointError.wrongLength(path: "x", needed: 9, found: 8).description
        == "x: the header describes 9 bytes, the file has 8 (truncated?)")
    #expect(CheckpointError.wrongLength(path: "x", needed: 8, found: 9).description == "x: the header describes 8 bytes, the file has 9")
    #expect(CheckpointError.missingTensor(name: "x").hint == nil)
  }
}

struct ModelConfigTests {
  private func complaint(_ text: String) -> String? {
    do throws(CheckpointError) {
      _ = try ModelConfig(text: text.utf8, path: "place")
      return nil
    } catch {
      guard case .malformedConfiguration("place", let reason) = error else { return "\(error)" }
      return reason
    }
  }

  @Test func refusesWhatIsNoConfiguration() {
    #expect(complaint("{\"model_type\":\"llama\"}") == nil)
    #expect(complaint("{\n\"model_type\": llama}")?.hasPrefix("line 2, column 15") == true)
    #expect(complaint("[]")?.contains("object") == true)
    #expect(complaint("{}")?.contains("\"model_type\"") == true)
    #expect(complaint("{\"model_type\":7}")?.contains("\"model_type\"") == true)
    #expect(complaint("")?.isEmpty == false)
  }

  @Test func decodingNamesTheKey() throws {
    struct Keys: Decodable { var hidden_size: Int, name: String? }
    func decode(_ text: String) throws -> Keys { try ModelConfig(text: text.utf8, path: "place").decode(Keys.self) }
    #expect(try decode("{\"model_type\":\"x\",\"hidden_size\":8}").hidden_size == 8)
    func reason(_ text: String) -> String? {
      guard case .failure(let error) = Result(catching: { try decode(text) }) else { return nil }
      if case CheckpointError.malformedConfiguration("place", let reason) = error { return reason }
      return "\(error)"
    }
    #expect(reason("{\"model_type\":\"x\"}") == "\"hidden_size\" is missing")
    #expect(reason("{\"model_type\":\"x\",\"hidden_size\":\"8\"}") == "\"hidden_size\" should be Int")
    #expect(reason("{\"model_type\":\"x\",\"hidden_size\":8,\"name\":[]}") == "\"name\" should be String")
    #expect(reason("{\"model_type\":\"x\",\"hidden_size\":null}")?.contains("hidden_size") == true)
    #expect(reason("{\"model_type\":\"x\",\"hidden_size\":8.5}")?.contains("hidden_size") == true)
  }

  @Test func readsFiles() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "config.json")
      #expect(throws: CheckpointError.missingFile(path: url.path)) { try ModelConfig(contentsOf: url) }
      try Data(TinyModel.config.utf8).write(to: url)
      #expect(try ModelConfig(contentsOf: url).modelType == "llama")
      #expect(try ModelConfig(contentsOf: url).path == url.path)
    }
  }
}
