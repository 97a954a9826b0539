import CheckpointIO
import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing

/// Which of a directory's files are read.
struct ContainerTests {
  private func directory<Value>(_ files: [String: String], _ body: (URL) throws -> Value) throws -> Value {
    try Places.withTemporaryDirectory { directory in
      try Data("{\"model_type\":\"llama\"}".utf8).write(to: directory.appending(path: "config.json"))
      for (name, fixture) in files { try FileManager.default.copyItem(at: ForeignFiles.url(fixture), to: directory.appending(path: name)) }
      return try body(directory)
    }
  }

  @Test(arguments: [
    (["weights.npz": "arrays.npz"], "NumpyArchive"), (["pytorch_model.bin": "state.bin"], "PyTorchFile"),
    (["model.pth": "state.bin"], "PyTorchFile"),
    (["model.h5": "plain.h5"], "KerasWeights"), (["x.keras": "whole.keras"], "KerasWeights"),
    (["pytorch_model.bin": "state.bin", "model.npz": "arrays.npz"], "PyTorchFile"),
    (["optimizer.pt": "training.pt", "training_args.bin": "state.bin", "model.npz": "arrays.npz"], "NumpyArchive"),
    (["model.npz": "arrays.npz", "notes.bin": "containers.json"], "NumpyArchive"),
  ])
  func theFirstOfTheseIsRead(_ files: [String: String], _ kind: String) throws {
    try directory(files) { place in
      let source = try Checkpoint(place).tensors
      #expect("\(type(of: source))" == kind)
    }
  }

  @Test func severalAreNamed() throws {
    try directory(["a.npz": "arrays.npz", "b.npz": "arrays.npz"]) { place in
      let complaint = ForeignFiles.complaint { try Checkpoint(place).tensors }
      #expect(complaint?.contains("a.npz, b.npz") == true)
      #expect(ForeignFiles.complaint { try Checkpoint(place.appending(path: "a.npz")).tensors } == nil)
    }
  }

  @Test(arguments: [("model.npz", "arrays.npz"), ("model.pt", "state.bin"), ("model.h5", "plain.h5"), ("x.keras", "whole.keras")])
  func aDamagedFileIsNamed(_ name: String, _ fixture: String) throws {
    try directory([:]) { place in
      let whole = try Data(contentsOf: ForeignFiles.url(fixture))
      for count in [0, 3, 100, whole.count / 2, whole.count - 30] {
        try whole.prefix(count).write(to: place.appending(path: name))
        let complaint = try #require(ForeignFiles.complaint { try Checkpoint(place).tensors })
        #expect(complaint.contains("/\(name): "), "\(count) bytes: \(complaint)")
      }
      // A sound file beside it is what is read.
      try FileManager.default.copyItem(at: ForeignFiles.url("state.bin"), to: place.appending(path: "pytorch_model.bin"))
      #expect(ForeignFiles.complaint { try Checkpoint(place).tensors } == nil)
    }
  }

  @Test func metaLayoutIsReadAsHuggingFace() throws {
    let place = try ForeignFiles.url("meta-llama")
    for source in [place, place.appending(path: "consolidated.00.pth")] {
      let checkpoint = try Checkpoint(source)
      try ForeignFiles.compare(checkpoint.tensors, with: "meta-llama")
      let json = checkpoint.config.json
      #expect(json["intermediate_size"]?.integer == 12 && json["vocab_size"]?.integer == 6 && json["num_key_value_heads"]?.integer == 1)
      #expect(json["rope_theta"]?.double == 500_000 && json["tie_word_embeddings"]?.bool == false && json["head_dim"]?.integer == 4)
      #expect(checkpoint.companions().files.isEmpty)
    }
  }

  @Test func metaLayoutThatIsNotReadSaysWhatItIs() throws {
    try Places.withTemporaryDirectory { place in
      let (weights, parameters) = (place.appending(path: "consolidated.00.pth"), place.appending(path: "params.json"))
      try FileManager.default.copyItem(at: ForeignFiles.url("meta-llama").appending(path: "consolidated.00.pth"), to: weights)
      #expect(ForeignFiles.complaint { try Checkpoint(place).tensors }?.contains("needs params.json") == true)
      for (text, word) in [
        ("{}", "dim, n_layers and n_heads"), (#"{"dim":8,"n_layers":1,"n_heads":0}"#, "no model's"),
        (#"{"dim":8,"n_layers":1,"n_heads":2,"n_kv_heads":1,"use_scaled_rope":true}"#, "convert_llama_weights_to_hf.py"),
      ] {
        try Data(text.utf8).write(to: parameters)
        #expect(ForeignFiles.complaint { try Checkpoint(place).tensors }?.contains(word) == true, "\(text)")
      }
      try FileManager.default.copyItem(at: weights, to: place.appending(path: "consolidated.01.pth"))
      #expect(ForeignFiles.complaint { try Checkpoint(place).tensors }?.contains("cut into 2 parts") == true)
    }
  }

  @Test func tensorsAreListedWithoutAModel() throws {
    try directory(["state.bin": "state.bin", "model.npz": "arrays.npz"]) { place in
      try FileManager.default.removeItem(at: place.appending(path: "config.json"))
      for (file, kind, list) in [("state.bin", Container.pytorch, "state.bin"), ("model.npz", .npz, "arrays.npz")] {
        let collection = try TensorCollection(place.appending(path: file))
        #expect(collection.container == kind && !collection.isDirectory && collection.metadata.isEmpty)
        #expect(collection.tensors.names == (try ForeignFiles.expected(list)).map(\.name))
      }
      #expect(throws: CheckpointError.self) { try TensorCollection(place.appending(path: "absent")) }
      try Data("no weights".utf8).write(to: place.appending(path: "notes.bin"))
      #expect(throws: CheckpointError.self) { try TensorCollection(place.appending(path: "notes.bin")) }
    }
  }

  @Test func aFileNeedsItsConfiguration() throws {
    try directory(["a.npz": "arrays.npz"]) { place in
      try FileManager.default.removeItem(at: place.appending(path: "config.json"))
      #expect(throws: CheckpointError.missingFile(path: place.appending(path: "config.json").path)) {
        try Checkpoint(place.appending(path: "a.npz"))
      }
    }
  }

  @Test func aMixedUpIndexIsRefused() throws {
    try directory(["one.bin": "state.bin"]) { place in
      let index = place.appending(path: "pytorch_model.bin.index.json")
      for map in ["{\"0.weight\":\"../one.bin\"}", "{\"0.weight\":\"two.bin\"}", "{\"absent\":\"one.bin\"}"] {
        try Data("{\"weight_map\":\(map)}".utf8).write(to: index)
        #expect(throws: CheckpointError.self) { try Checkpoint(place) }
      }
    }
  }
}
