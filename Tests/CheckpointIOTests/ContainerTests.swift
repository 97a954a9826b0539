import CheckpointIO
import Foundation
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
