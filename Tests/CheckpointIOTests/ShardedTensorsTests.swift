import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

struct ShardedTensorsTests {
  /// Two shards: `one.safetensors` with a and b, `two.safetensors` with c, and an index that says so.
  private func write(to directory: URL, index: String, second: [String] = ["c"]) async throws -> URL {
    for (name, tensors) in [("one", ["a", "b"]), ("two", second)] {
      let folder = directory.appending(path: name)
      let writer = try SafetensorsWriter(to: folder)
      try await writer.append(tensors.map { NamedTensor(name: $0, tensor: Tensor([Float($0.utf8.first!)], shape: [1], dtype: .float32)) })
      try await writer.finish(files: [])
      try FileManager.default.moveItem(
        at: folder.appending(path: "model.safetensors"), to: directory.appending(path: "\(name).safetensors"))
      try FileManager.default.removeItem(at: folder)
    }
    let url = directory.appending(path: "model.safetensors.index.json")
    try Data(index.utf8).write(to: url)
    return url
  }

  private func map(_ entries: String) -> String { "{\"metadata\":{\"total_size\":12},\"weight_map\":{\(entries)}}" }

  private static let whole = "\"a\":\"one.safetensors\",\"b\":\"one.safetensors\",\"c\":\"two.safetensors\""

  @Test(arguments: [
    "{\"metadata\":{\"total_size\":12},\"weight_map\":{\(whole)}}", "{\"metadata\":{\"total_size\":12.0},\"weight_map\":{\(whole)}}",
    "{\"weight_map\":{\(whole)}}", "{\"weight_map\":{\(whole)},\"metadata\":null,\"extra\":1}",
  ])
  func readsAcrossShards(_ index: String) async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = try ShardedTensors(safetensors: try await write(to: directory, index: index))
      #expect(source.names == ["a", "b", "c"])
      #expect(source.unlisted.isEmpty)
      for name in ["a", "b", "c"] { #expect(try source.tensor(name).floats() == [Float(name.utf8.first!)]) }
      #expect(source.info("c") == TensorInfo(dtype: .float32, shape: [1]))
      #expect(source.info("d") == nil)
      #expect(throws: CheckpointError.missingTensor(name: "d")) { try source.tensor("d") }
    }
  }

  @Test(arguments: [
    "", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}",
    "{\"weight_map\":{\"a\":\"/one.safetensors\"}}", "{\"weight_map\":{\"a\":\"sub/one.safetensors\"}}",
    "{\"weight_map\":{\"a\":\"sub\\\\one.safetensors\"}}", "{\"weight_map\":{\"a\":\"..\"}}", "{\"weight_map\":{\"a\":\"\"}}",
    "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}", "{\"weight_map\":{\"a\":\"two.safetensors\"}}",
    "{\"weight_map\":{\"d\":\"one.safetensors\"}}",
  ])
  func refusesAnIndexThatDoesNotFit(_ index: String) async throws {
    try await Places.withTemporaryDirectory { directory in
      let url = try await write(to: directory, index: index)
      do throws(CheckpointError) {
        _ = try ShardedTensors(safetensors: url)
        Issue.record("accepted")
      } catch {
        guard case .malformedIndex(url.path, _) = error else {
          Issue.record("\(error)")
          return
        }
      }
    }
  }

  @Test func manyShardsAreNoReasonToWait() throws {
    try Places.withTemporaryDirectory { directory in
      let index = directory.appending(path: "model.safetensors.index.json")
      let entries = (0..<100_000).map { "\"t\($0)\":\"shard-\($0).safetensors\"" }.joined(separator: ",")
      try Data("{\"weight_map\":{\(entries)}}".utf8).write(to: index)
      // Processor time of this thread: what else runs beside the test does not count.
      let start = processorNanoseconds()
      let first = directory.appending(path: "shard-0.safetensors")
      #expect(throws: CheckpointError.missingFile(path: first.path)) { try ShardedTensors(safetensors: index) }
      #expect(processorNanoseconds() - start < 5_000_000_000)
    }
  }

  @Test func refusesATensorInTwoShards() async throws {
    try await Places.withTemporaryDirectory { directory in
      let url = try await write(to: directory, index: map(Self.whole), second: ["c", "a"])
      do throws(CheckpointError) {
        _ = try ShardedTensors(safetensors: url)
        Issue.record("accepted")
      } catch {
        guard case .malformedIndex(_, let reason) = error else {
          Issue.record("\(error)")
          return
        }
        #expect(reason.contains("\"a\"") && reason.contains("one.safetensors") && reason.contains("two.safetensors"))
      }
    }
  }

  @Test func toleratesTensorsTheIndexDoesNotName() async throws {
    try await Places.withTemporaryDirectory { directory in
      let index = map("\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"")
      let source = try ShardedTensors(safetensors: try await write(to: directory, index: index))
      #expect(source.names == ["a", "c"])
      #expect(source.unlisted == ["b"])
    }
  }

  @Test func namesTheShardThatIsMissingOrCutOff() async throws {
    try await Places.withTemporaryDirectory { directory in
      let url = try await write(to: directory, index: map(Self.whole))
      let shard = directory.appending(path: "two.safetensors")
      let bytes = try Data(contentsOf: shard)
      try bytes.dropLast().write(to: shard)
      #expect(throws: CheckpointError.wrongLength(path: shard.path, needed: bytes.count, found: bytes.count - 1)) {
        try ShardedTensors(safetensors: url)
      }
      try FileManager.default.removeItem(at: shard)
      #expect(throws: CheckpointError.missingFile(path: shard.path)) { try ShardedTensors(safetensors: url) }
      try FileManager.default.removeItem(at: url)
      #expect(throws: CheckpointError.missingFile(path: url.path)) { try ShardedTensors(safetensors: url) }
    }
  }
}

/// Time that this thread has computed.
private func processorNanoseconds() -> Int {
  var time = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return time.tv_sec * 1_000_000_000 + time.tv_nsec
}
