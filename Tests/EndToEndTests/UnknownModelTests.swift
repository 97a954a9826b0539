import CompressKit
import Foundation
import TestSupport
import Testing

/// The real command on files whose model nobody knows.
@Suite struct UnknownModelTests {
  private static let tensors = [
    NamedTensor(name: "encoder.weight", tensor: Tensor([1, 2, 3, 4, 5, 6], shape: [2, 3], dtype: .bfloat16)),
    NamedTensor(name: "encoder.scale", tensor: Tensor(dtype: .int16, shape: [2], bytes: Data([126, 0, 127, 0]))),
  ]

  private func write(to directory: URL, config: String?) async throws {
    let writer = try SafetensorsWriter(to: directory)
    try await writer.append(Self.tensors)
    try await writer.finish(
      files: (config.map { [CheckpointFile("config.json", .text($0))] } ?? []) + [CheckpointFile("tokenizer.json", .text("{}"))])
  }

  private func json(_ outcome: Command.Outcome) throws -> [String: Any] {
    #expect(outcome.status == 0, "\(outcome.errors)")
    return try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
  }

  @Test(arguments: [nil, "{\"model_type\":\"llama9\"}", "{\"name\":\"autoencoder\"}", "{\"model_type\":\"quen3\"}"])
  func inspectListsWhatIsThere(_ config: String?) async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      try await write(to: place, config: config)
      for path in [place.path, place.appending(path: "model.safetensors").path] {
        let shown = try json(try await Command.run(["inspect", path, "--json"]))
        let tensors = shown.list("tensors")
        #expect(tensors.compactMap { $0["name"] as? String } == ["encoder.scale", "encoder.weight"])
        #expect(tensors.compactMap { $0["type"] as? String } == ["I16", "BF16"])
        #expect(tensors.last?["shape"] as? [Int] == [2, 3] && tensors.last?.number("bytes") == 12)
        #expect(shown.object("metadata")["format"] as? String == "pt" && shown["container"] as? String == "safetensors")
        let nearest = shown["nearest_model_type"] as? String
        #expect(nearest == (config?.contains("llama9") == true ? "llama" : config?.contains("quen3") == true ? "qwen3" : nil))
        let text = try await Command.run(["inspect", path])
        #expect(text.status == 0 && text.output.contains("encoder.weight") && text.output.contains("the model is not known"))
      }
    }
  }

  @Test func inspectStillRefusesDamage() async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      try await write(to: place, config: nil)
      let file = place.appending(path: "model.safetensors")
      try Data(contentsOf: file).dropLast(3).write(to: file)
      let outcome = try await Command.run(["inspect", file.path])
      #expect(outcome.status == 65 && outcome.output.isEmpty && outcome.errors.contains("truncated"), "\(outcome.errors)")
    }
  }

  @Test func containersTakeThemAsTheyAre() async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      let config = "{\"model_type\":\"autoencoder\",\"depth\":3}"
      try await write(to: place, config: config)
      // Through every container and back.
      var from = place
      for format in ["hdf5", "npz", "safetensors"] {
        let to = directory.appending(path: format)
        let outcome = try await Command.run(["convert", from.path, "--to", format, "--output", to.path, "--json", "--progress", "plain"])
        #expect(outcome.errors.contains("the model is not known"), "\(outcome.errors)")
        let report = try json(outcome)
        #expect((report["carried_tensors"] as? [String])?.count == 2 && report.number("dequantized") == 0)
        let files = try FileManager.default.contentsOfDirectory(at: to, includingPropertiesForKeys: [.fileSizeKey])
        let weights = files.filter { $0.lastPathComponent.hasPrefix("model.") }
        #expect(report.number("bytes_after") == Double(try weights[0].resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0), "\(format)")
        #expect(try String(contentsOf: to.appending(path: "config.json"), encoding: .utf8) == config)
        #expect(Set(files.map(\.lastPathComponent)).isSuperset(of: ["config.json", "tokenizer.json"]))
        from = to
      }
      let (before, after) = (try TensorCollection(place).tensors, try TensorCollection(from).tensors)
      #expect(Set(before.names) == Set(after.names))
      for name in before.names {
        #expect(try before.tensor(name).bytes == after.tensor(name).bytes && before.info(name) == after.info(name))
      }
      // A single file travels alone, and what needs the model says why it is not known.
      let alone = directory.appending(path: "alone")
      let file = place.appending(path: "model.safetensors").path
      #expect(try await Command.run(["convert", file, "--to", "npz", "--output", alone.path]).status == 0)
      #expect(try FileManager.default.contentsOfDirectory(atPath: alone.path).filter { !$0.hasPrefix(".") } == ["model.npz"])
      for format in ["gguf", "gptq", "keras"] {
        let refused = try await Command.run(["convert", place.path, "--to", format, "--output", directory.appending(path: "no").path])
        #expect(refused.status == 65 && refused.errors.contains("\"autoencoder\" is not supported"), "\(refused.errors)")
      }
      #expect(!FileManager.default.fileExists(atPath: directory.appending(path: "no").path))
    }
  }

  @Test func blocksOfAnUnknownGGUFBecomeNumbers() async throws {
    try await Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "strange.gguf")
      let weight = Matrix.random(rows: 3, columns: 64, key: "blocks")
      let blocks = BlockQuantizedMatrix(weight, as: .q8_0)
      let writer = try GGUFWriter(to: directory.appending(path: "made")) { tensors, _ in
        var metadata = GGUFMetadata()
        metadata["general.architecture"] = .string("strange")
        metadata["strange.words"] = .strings((0..<40).map { "w\($0)" })
        return GGUFLayout(
          metadata: metadata,
          tensors: tensors.map { .init(name: $0.name, type: .q8_0, shape: $0.info.shape, source: .appended($0.name)) })
      }
      try await writer.append([NamedTensor(name: "a.weight", tensor: blocks.blocks, blocks: .q8_0)])
      try await writer.finish(files: [])
      try FileManager.default.moveItem(at: directory.appending(path: "made/model.gguf"), to: file)
      let shown = try json(try await Command.run(["inspect", file.path, "--json"]))
      #expect(shown.list("tensors").first?["type"] as? String == "Q8_0" && shown.list("tensors").first?["shape"] as? [Int] == [3, 64])
      #expect(shown.object("metadata").object("strange.words").number("count") == 40)
      let to = directory.appending(path: "to")
      let report = try json(
        try await Command.run(["convert", file.path, "--to", "safetensors", "--output", to.path, "--json", "--progress", "none"]))
      #expect(report.number("dequantized") == 1)
      #expect(try TensorCollection(to).tensors.tensor("a.weight").floats() == blocks.dense().elements)
    }
  }
}
