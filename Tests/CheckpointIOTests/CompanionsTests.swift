import CheckpointIO
import Foundation
import TestSupport
import Testing

struct CompanionsTests {
  private static let files = FileManager.default

  private func write(_ names: [String], in directory: URL) throws {
    for name in names {
      let file = directory.appending(path: name)
      try Self.files.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(name.utf8).write(to: file)
    }
  }

  @Test func companionsTravelAndWeightsDoNot() async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      try await TinyModel.write(to: place)
      let kept = [
        "LICENSE", "README.md", "additional_chat_templates/rag.jinja", "additional_chat_templates/tool_use.jinja", "assets/a/b.png",
        "chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer.model", "vocab.txt",
      ]
      let left = [
        ".hidden", ".git/config", ".cache/huggingface/x.lock", "__pycache__/m.pyc", "consolidated.00.pth", "model.gguf",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json", "recipe.yaml", "report.json", "rust_model.ot.onnx", "tf_model.h5", "x.partial",
        "checkpoint-500/optimizer.pt", "checkpoint-500/trainer_state.json", "onnx/deep/model.onnx", "onnx/config.json",
      ]
      try write(kept + left, in: place)
      try Self.files.createDirectory(at: place.appending(path: "empty"), withIntermediateDirectories: true)
      let found = try Checkpoint(place).companions()
      #expect(found.files.map(\.name) == kept)
      #expect(
        found.remarks == [
          "checkpoint-500/ of the model stays behind: it holds weights of its own, such as checkpoint-500/optimizer.pt",
          "onnx/ of the model stays behind: it holds weights of its own, such as onnx/deep/model.onnx",
        ])
      // The modules of a sentence encoder travel with their weights.
      try write(["2_Dense/config.json", "2_Dense/model.safetensors"], in: place)
      let dense = try Checkpoint(place).companions(modules: ["2_Dense"]).files.map(\.name)
      #expect(dense.contains("2_Dense/model.safetensors") && dense.contains("2_Dense/config.json"))
    }
  }

  /// As `huggingface_hub` keeps models: every file of a snapshot is a link to a blob named by its hash.
  @Test func linksOfTheHubsCacheAreFollowed() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (blobs, snapshot) = (directory.appending(path: "blobs"), directory.appending(path: "snapshots/0f3a"))
      try await TinyModel.write(to: directory.appending(path: "plain"))
      try write(["plain/tokenizer.json", "plain/additional_chat_templates/tool_use.jinja"], in: directory)
      try Self.files.createDirectory(at: blobs, withIntermediateDirectories: true)
      let names = ["config.json", "model.safetensors", "tokenizer.json", "additional_chat_templates/tool_use.jinja"]
      for (index, name) in names.enumerated() {
        let link = snapshot.appending(path: name)
        try Self.files.createDirectory(at: link.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Self.files.moveItem(at: directory.appending(path: "plain/\(name)"), to: blobs.appending(path: "\(index)"))
        let up = String(repeating: "../", count: name.contains("/") ? 3 : 2)
        try Self.files.createSymbolicLink(atPath: link.path, withDestinationPath: "\(up)blobs/\(index)")
      }
      let stage = try StagedDirectory(for: directory.appending(path: "out"), overwrite: false)
      let gathered = try Checkpoint(snapshot).companions().gathered(in: stage)
      #expect(gathered.files.map(\.name) == ["additional_chat_templates/tool_use.jinja", "tokenizer.json"] && gathered.remarks.isEmpty)
      try stage.publish()
      for name in gathered.files.map(\.name) {
        let copy = directory.appending(path: "out/\(name)")
        #expect(try Self.files.attributesOfItem(atPath: copy.path)[.type] as? FileAttributeType == .typeRegular)
        #expect(try String(contentsOf: copy, encoding: .utf8) == "plain/" + name)
      }
    }
  }

  @Test func whatIsNoFileIsNamed() async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      try await TinyModel.write(to: place)
      try write(["tokenizer.json", "templates/a.jinja"], in: place)
      #expect(mkfifo(place.appending(path: "pipe").path, 0o600) == 0)
      try Self.files.createSymbolicLink(atPath: place.appending(path: "gone.json").path, withDestinationPath: "nowhere")
      try Self.files.createSymbolicLink(atPath: place.appending(path: "null").path, withDestinationPath: "/dev/null")
      try Self.files.createSymbolicLink(atPath: place.appending(path: "templates/back").path, withDestinationPath: "../templates")
      try Self.files.createSymbolicLink(atPath: place.appending(path: "templates/b.jinja").path, withDestinationPath: "absent")
      let found = try Checkpoint(place).companions()
      #expect(found.files.map(\.name) == ["templates/a.jinja", "tokenizer.json"])
      #expect(
        found.remarks == [
          "gone.json of the model stays behind: it is a link that leads nowhere", "null of the model stays behind: it is a device",
          "pipe of the model stays behind: it is a pipe", "templates/b.jinja of the model stays behind: it is a link that leads nowhere",
        ])
    }
  }

  /// A downloaded GGUF file lies among whatever else was downloaded.
  @Test func besideALoneFileOnlyATokenizerTravels() throws {
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "stories.bin")
      let sizes: [Int32] = [4, 3, 1, 2, 1, 5, 2]
      try (sizes.withUnsafeBytes { Data($0) } + Data(count: 120 * 4)).write(to: file)
      try write(["holiday.jpg", "tokenizer.json", "thesis/chapter.tex"], in: directory)
      #expect(try Checkpoint(file).companions().files.map(\.name) == ["tokenizer.json"])
    }
  }
}
