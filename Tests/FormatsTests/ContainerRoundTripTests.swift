import CompressKit
import Foundation
import TestSupport
import Testing

/// Dense weights through every container that can be written and back: byte for byte.
struct ContainerRoundTripTests {
  @Test(arguments: ["npz", "hdf5", "keras", "safetensors"], [DType.float32, .bfloat16, .float16])
  func weightsAreTheSameBytes(_ name: String, _ dtype: DType) async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, target, back) = (directory.appending(path: "a"), directory.appending(path: "b"), directory.appending(path: "c"))
      let json = try ModelConfig(text: TinyModel.config.utf8).json
      var config = json
      config["torch_dtype"] = .string(dtype == .float32 ? "float32" : dtype == .bfloat16 ? "bfloat16" : "float16")
      try await TinyModel.write(to: source, config.text(), dtype: dtype)
      let format = try #require(FormatCatalog.standard[name])
      let original = try Checkpoint(source)
      _ = try await Converter(to: format).run(original, to: target)
      let converted = try Checkpoint(target)
      try expectSame(converted, original)
      _ = try await Converter(to: PlainFormat()).run(converted, to: back)
      try expectSame(try Checkpoint(back), original)
      #expect(
        try Data(contentsOf: back.appending(path: "model.safetensors")) == Data(contentsOf: source.appending(path: "model.safetensors")))
    }
  }

  private func expectSame(_ found: Checkpoint, _ expected: Checkpoint) throws {
    #expect(Set(found.tensors.names) == Set(expected.tensors.names))
    for name in expected.tensors.names {
      let (a, b) = (try found.tensors.tensor(name), try expected.tensors.tensor(name))
      #expect(a.dtype == b.dtype && a.shape == b.shape && a.bytes == b.bytes, "\(name)")
    }
    let (a, b) = (try Model(found), try Model(expected))
    #expect(a.description.blocks == b.description.blocks && a.description.head == b.description.head)
  }
}
