import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

private func tensor(_ name: String, bytes count: Int) -> NamedTensor {
  NamedTensor(
    name: name, tensor: Tensor(dtype: .uint8, shape: [count], integers: (0..<count).map { UInt8(truncatingIfNeeded: $0 + name.utf8.count) })
  )
}

private func exists(_ url: URL) -> Bool { FileManager.default.fileExists(atPath: url.path) }

/// What lies in a directory, the mark of an output apart.
private func listing(_ url: URL) throws -> [String] {
  try FileManager.default.contentsOfDirectory(atPath: url.path).filter { $0 != ".compress-output.json" }.sorted()
}

struct SafetensorsWriterTests {
  /// A tensor that is made entry by entry is the file that the whole tensor would be.
  @Test func entriesMakeTheSameFile() async throws {
    try await Places.withTemporaryDirectory { directory in
      let whole = Tensor((0..<24).map(Float.init), shape: [3, 4, 2], dtype: .bfloat16)
      let inEntries = NamedTensor(name: "stack", dtype: .bfloat16, shape: [3, 4, 2]) { whole.entry($0) }
      #expect(inEntries.tensor.bytes == whole.bytes && inEntries.info == NamedTensor(name: "stack", tensor: whole).info)
      var files: [Data] = []
      for (name, tensor) in [("a", NamedTensor(name: "stack", tensor: whole)), ("b", inEntries)] {
        let destination = directory.appending(path: name)
        let writer = try SafetensorsWriter(to: destination)
        try await writer.append([tensor])
        try await writer.finish(files: [])
        files.append(try Data(contentsOf: destination.appending(path: "model.safetensors")))
      }
      #expect(files[0] == files[1])
    }
  }

  @Test func writesTheGoldenFileByteForByte() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let writer = try SafetensorsWriter(to: destination)
      try await writer.append([
        NamedTensor(name: "a", tensor: Tensor(dtype: .uint8, shape: [3], integers: [UInt8](0..<3))),
        NamedTensor(name: "h", tensor: Tensor([1, 1], shape: [2], dtype: .float16)),
      ])
      try await writer.append([
        NamedTensor(name: "c", tensor: Tensor([0, 1], shape: [2], dtype: .float32)),
        NamedTensor(name: "i", tensor: Tensor(dtype: .int64, shape: [1], integers: [Int64(1)])),
        NamedTensor(name: "b", tensor: Tensor([0, 1], shape: [2], dtype: .float32)),
      ])
      try await writer.finish(files: [])
      let header =
        #"{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"#
        + #""b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"c":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},"#
        + #""h":{"dtype":"F16","shape":[2],"data_offsets":[24,28]},"a":{"dtype":"U8","shape":[3],"data_offsets":[28,31]}} "#
      let data: [UInt8] = [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3F, 0, 0, 0, 0, 0, 0, 0x80, 0x3F, 0, 0x3C, 0, 0x3C, 0, 1, 2,
      ]
      let golden = [0x30, 1, 0, 0, 0, 0, 0, 0] + Array(header.utf8) + data
      #expect(header.utf8.count == 304)
      #expect(try [UInt8](Data(contentsOf: destination.appending(path: "model.safetensors"))) == golden)
      #expect(try listing(destination) == ["model.safetensors"])
    }
  }

  @Test func theHeaderOfPackedFloatsIsThatOfTheReference() throws {
    let info = TensorInfo(dtype: .float4E2M1, shape: [1, 4])
    let bytes = try #require(SafetensorsHeader(layingOut: [("w", info)], metadata: []).serialized())
    let text = #"{"w":{"dtype":"F4","shape":[1,4],"data_offsets":[0,2]}} "#
    #expect(bytes == [UInt8(text.utf8.count), 0, 0, 0, 0, 0, 0, 0] + Array(text.utf8))
  }

  @Test func namesAreSortedByBytesAndEscaped() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let names = ["b", "a\"\\\n", "\u{E9}", "Z", "a.10", "a.9", "a/\u{1}"]
      let writer = try SafetensorsWriter(to: destination)
      for name in names { try await writer.append([tensor(name, bytes: name.utf8.count)]) }
      try await writer.finish(files: [])
      let file = try SafetensorsFile(destination.appending(path: "model.safetensors"))
      #expect(file.names == names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
      for name in names { #expect(try Array(file.tensor(name).bytes) == Array(tensor(name, bytes: name.utf8.count).tensor.bytes)) }
      let text = String(decoding: try Data(contentsOf: destination.appending(path: "model.safetensors")), as: UTF8.self)
      #expect(text.contains(#""a\"\\\n":"#) && text.contains(#""a/\u0001":"#) && text.contains("\"\u{E9}\":"))
    }
  }

  @Test func shardsAtTheLimitAndWritesTheIndex() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let writer = try SafetensorsWriter(to: destination, shardLimit: 20)
      let tensors = [("a", 8), ("b", 8), ("c", 8), ("d", 40), ("e", 4), ("f", 16)].map { tensor($0.0, bytes: $0.1) }
      for tensor in tensors { try await writer.append([tensor]) }
      try await writer.finish(files: [CheckpointFile("config.json", .text("{\"model_type\":\"x\"}"))])
      // a and b together; c alone, since d is larger than a shard; e and f fill theirs exactly.
      let shard = { (number: Int) in "model-0000\(number)-of-00004.safetensors" }
      #expect(try listing(destination) == ["config.json"] + (1...4).map(shard) + ["model.safetensors.index.json"])
      let index = """
        {
          "metadata": {
            "total_size": 84
          },
          "weight_map": {
            "a": "\(shard(1))",
            "b": "\(shard(1))",
            "c": "\(shard(2))",
            "d": "\(shard(3))",
            "e": "\(shard(4))",
            "f": "\(shard(4))"
          }
        }

        """
      #expect(try String(contentsOf: destination.appending(path: "model.safetensors.index.json"), encoding: .utf8) == index)
      let checkpoint = try Checkpoint(destination)
      #expect(checkpoint.tensors.names == ["a", "b", "c", "d", "e", "f"])
      #expect(checkpoint.byteCount == 84)
      for named in tensors { #expect(try checkpoint.tensors.tensor(named.name).bytes == named.tensor.bytes) }
    }
  }

  @Test func largeTensorsAreCopiedWhole() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let count = (8 << 20) + 12_345
      let large = NamedTensor(
        name: "z", tensor: Tensor(dtype: .uint8, shape: [count], integers: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }))
      let writer = try SafetensorsWriter(to: destination)
      try await writer.append([tensor("a", bytes: 3), large, tensor("b", bytes: 5)])
      try await writer.finish(files: [])
      let file = try SafetensorsFile(destination.appending(path: "model.safetensors"))
      #expect(try file.tensor("z").bytes == large.tensor.bytes)
      #expect(try file.tensor("b").bytes == tensor("b", bytes: 5).tensor.bytes)
    }
  }

  @Test func nothingHasTheFinalNameBeforeTheEnd() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let writer = try SafetensorsWriter(to: destination, shardLimit: 4)
      #expect(!exists(destination))
      for name in ["a", "b", "c"] { try await writer.append([tensor(name, bytes: 4)]) }
      #expect(!exists(destination))
      #expect(try listing(directory).allSatisfy { $0.hasPrefix(".model.") })
      try await writer.finish(files: [])
      #expect(try listing(directory) == ["model"])
    }
  }

  @Test func abandoningLeavesNothing() async throws {
    try await Places.withTemporaryDirectory { directory in
      let writer = try SafetensorsWriter(to: directory.appending(path: "model"), shardLimit: 4)
      for name in ["a", "b"] { try await writer.append([tensor(name, bytes: 4)]) }
      await writer.abandon()
      #expect(try listing(directory).isEmpty)
    }
  }

  @Test func anExistingCheckpointIsKeptUnlessToldOtherwise() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let old = try SafetensorsWriter(to: destination)
      try await old.finish(files: [CheckpointFile("old.txt", .text("old"))])
      #expect(throws: CheckpointError.exists(path: destination.path)) { try SafetensorsWriter(to: destination) }
      #expect(try listing(directory) == ["model"])
      let writer = try SafetensorsWriter(to: destination, overwrite: true)
      try await writer.append([tensor("a", bytes: 1)])
      #expect(try listing(destination) == ["model.safetensors", "old.txt"])
      try await writer.finish(files: [])
      #expect(try listing(directory) == ["model"])
      #expect(try listing(destination) == ["model.safetensors"])
    }
  }

  @Test func aFailedEndLeavesTheOldCheckpoint() async throws {
    try await Places.withTemporaryDirectory { directory in
      let destination = directory.appending(path: "model")
      let old = try SafetensorsWriter(to: destination)
      try await old.finish(files: [CheckpointFile("old.txt", .text("old"))])
      let writer = try SafetensorsWriter(to: destination, overwrite: true)
      try await writer.append([tensor("a", bytes: 1)])
      await #expect(throws: CheckpointError.self) {
        try await writer.finish(files: [CheckpointFile("tokenizer.json", .copy(of: directory.appending(path: "absent.json")))])
      }
      await writer.abandon()
      #expect(try listing(directory) == ["model"])
      #expect(try listing(destination) == ["model.safetensors", "old.txt"])
    }
  }

  @Test func placesThatCannotBeWrittenAreNamed() throws {
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "file")
      try Data().write(to: file)
      let destination = file.appending(path: "model")
      do throws(CheckpointError) {
        _ = try SafetensorsWriter(to: destination)
        Issue.record("a directory was made inside a file")
      } catch {
        guard case .cannotWrite(let path, let reason) = error else {
          Issue.record("\(error)")
          return
        }
        #expect(path == destination.path)
        #expect(!reason.isEmpty)
      }
    }
  }

  @Test func filesTravelAlong() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "source.txt")
      try Data("copied".utf8).write(to: source)
      let writer = try SafetensorsWriter(to: directory.appending(path: "model"))
      try await writer.finish(files: [CheckpointFile("a.txt", .text("written\u{E9}")), CheckpointFile("b.txt", .copy(of: source))])
      let destination = directory.appending(path: "model")
      #expect(try String(contentsOf: destination.appending(path: "a.txt"), encoding: .utf8) == "written\u{E9}")
      #expect(try String(contentsOf: destination.appending(path: "b.txt"), encoding: .utf8) == "copied")
      #expect(try SafetensorsFile(destination.appending(path: "model.safetensors")).names.isEmpty)
    }
  }
}
