import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

/// Every tensor under its own name, in the order it came.
private func plain(_ tensors: [(name: String, info: TensorInfo)], _ files: [CheckpointFile]) throws(CheckpointError) -> GGUFLayout {
  var metadata = GGUFMetadata()
  metadata["files"] = .strings(files.map(\.name))
  return GGUFLayout(
    metadata: metadata,
    tensors: tensors.map { name, info in
      .init(name: name, type: info.blocks ?? BlockType(info.dtype)!, shape: info.shape, source: .appended(name))
    })
}

struct GGUFWriterTests {
  private let matrix = Matrix.random(rows: 6, columns: 256, key: "gguf")

  private func tensors() -> [NamedTensor] {
    [
      NamedTensor(name: "f", tensor: Tensor(matrix.elements, shape: [6, 256], dtype: .bfloat16)),
      NamedTensor(name: "q", tensor: BlockType.q6_k.quantize(matrix), blocks: .q6_k),
      NamedTensor(name: "n", tensor: Tensor([1, 2, 3], shape: [3], dtype: .float32)),
    ]
  }

  @Test func whatIsWrittenIsRead() async throws {
    try await Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      let writer = try GGUFWriter(to: output, layOut: plain)
      for tensor in tensors() { try await writer.append([tensor]) }
      #expect(!FileManager.default.fileExists(atPath: output.path))
      try await writer.finish(files: [CheckpointFile("config.json", .text("{}"))])
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: output.path).sorted() == [".compress-output.json", "config.json", "model.gguf"])
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["out"])
      let file = try GGUFFile(output.appending(path: "model.gguf"))
      #expect(file.names == ["f", "q", "n"] && file.metadata["files"] == .strings(["config.json"]))
      for named in tensors() {
        #expect(file.info(named.name) == named.info)
        #expect(try file.tensor(named.name).bytes == named.tensor.bytes, "\(named.name)")
      }
      let size = try Data(contentsOf: output.appending(path: "model.gguf")).count
      #expect(size == file.header.dataStart + file.header.dataLength && size % 32 == 0)
    }
  }

  @Test func rowsAreReordered() async throws {
    try await Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      let order = [4, 0, 5, 1, 3, 2]
      let writer = try GGUFWriter(to: output) { tensors, _ in
        GGUFLayout(
          metadata: GGUFMetadata(),
          tensors: tensors.map { name, info in
            .init(
              name: "new." + name, type: info.blocks ?? BlockType(info.dtype)!, shape: info.shape,
              source: .appended(name, rowOrder: name == "n" ? [2, 0, 1] : order))
          } + [.init(name: "made", type: .f32, shape: [2], source: .bytes(Data([0, 0, 128, 63, 0, 0, 0, 64])))])
      }
      try await writer.append(tensors())
      try await writer.finish(files: [])
      let file = try GGUFFile(output.appending(path: "model.gguf"))
      #expect(try file.tensor("new.n").floats() == [3, 1, 2] && file.tensor("made").floats() == [1, 2])
      for named in tensors().dropLast() {
        #expect(try file.tensor("new." + named.name).bytes == named.tensor.rows(inOrder: order).bytes, "\(named.name)")
      }
    }
  }

  @Test func anExistingOutputIsKeptOrReplacedWhole() async throws {
    try await Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      for _ in 0..<2 {
        let writer = try GGUFWriter(to: output, overwrite: true, layOut: plain)
        try await writer.append(tensors())
        try await writer.finish(files: [])
      }
      #expect(throws: CheckpointError.exists(path: output.path)) { try GGUFWriter(to: output, layOut: plain) }
      let failing = try GGUFWriter(to: output, overwrite: true) { _, _ throws(CheckpointError) in
        throw .missingTensor(name: "output_norm.weight")
      }
      try await failing.append(tensors())
      await #expect(throws: CheckpointError.missingTensor(name: "output_norm.weight")) { try await failing.finish(files: []) }
      await failing.abandon()
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["out"])
      #expect(try GGUFFile(output.appending(path: "model.gguf")).names.count == 3)
    }
  }
}
