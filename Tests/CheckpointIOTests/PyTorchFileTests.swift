import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

struct PyTorchFileTests {
  @Test(arguments: ["views.pt", "deflated.pt", "training.pt", "state.bin", "odd.bin"])
  func readsWhatTorchWrites(_ file: String) throws {
    try ForeignFiles.compare(try PyTorchFile(ForeignFiles.url(file)), with: file)
  }

  @Test(arguments: [
    ("legacy.pt", "torch before 1.6"), ("script.pt", "TorchScript"), ("executes.pt", "posix.system"), ("numpy_inside.pt", "numpy"),
    ("arrays.npz", "not one of torch"), ("containers.json", "neither a checkpoint of torch"),
  ])
  func refusesWithTheReason(_ file: String, _ reason: String) throws {
    let url = try ForeignFiles.url(file)
    let complaint = try #require(ForeignFiles.complaint { try PyTorchFile(url) })
    #expect(complaint.contains(reason), "\(complaint)")
    #expect(!FileManager.default.fileExists(atPath: "/tmp/executed"))
  }

  @Test func whatIsOfNoTypeIsRefusedByItself() throws {
    let source = try PyTorchFile(ForeignFiles.url("odd.bin"))
    #expect(source.remarks.count == 2)
    for (name, type) in ["double": "torch.ComplexDoubleStorage", "conjugate": "C64 with the mark conj"] {
      #expect(source.remarks.contains { $0.contains("\"\(name)\"") && $0.contains(type) }, "\(source.remarks)")
      #expect(throws: CheckpointError.unusableType(tensor: name, dtype: type, use: "a tensor")) { try source.tensor(name) }
    }
  }

  @Test func everyTruncationIsRefused() throws {
    let whole = try Data(contentsOf: ForeignFiles.url("state.bin"))
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "cut.bin")
      for count in stride(from: 0, to: whole.count, by: 7) {
        try whole.prefix(count).write(to: url)
        #expect(throws: CheckpointError.self) { try PyTorchFile(url) }
      }
    }
  }

  @Test func aDamagedStorageIsFoundWhenItIsRead() throws {
    var bytes = try Data(contentsOf: ForeignFiles.url("state.bin"))
    let source = try PyTorchFile(ForeignFiles.url("state.bin"))
    let weight = try source.tensor("0.weight").bytes
    let place = try #require(bytes.range(of: weight))
    bytes[place.lowerBound] ^= 1
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "damaged.bin")
      try bytes.write(to: url)
      let damaged = try PyTorchFile(url)
      #expect(damaged.names == source.names)
      #expect(
        ForeignFiles.complaint {
          _ = try damaged.tensor("0.weight"); return damaged
        }?.contains("checksum") == true)
    }
  }

  @Test func shardsLieBehindAnIndex() throws {
    try Places.withTemporaryDirectory { directory in
      try FileManager.default.copyItem(at: ForeignFiles.url("state.bin"), to: directory.appending(path: "pytorch_model-00001-of-00002.bin"))
      try FileManager.default.copyItem(at: ForeignFiles.url("views.pt"), to: directory.appending(path: "pytorch_model-00002-of-00002.bin"))
      let map = ["0.weight": 1, "1.bias": 1, "plain": 2].map { "\"\($0)\":\"pytorch_model-0000\($1)-of-00002.bin\"" }
      try Data("{\"weight_map\":{\(map.joined(separator: ","))}}".utf8).write(to: directory.appending(path: "pytorch_model.bin.index.json"))
      try Data("{\"model_type\":\"llama\"}".utf8).write(to: directory.appending(path: "config.json"))
      let checkpoint = try Checkpoint(directory)
      #expect(Set(checkpoint.tensors.names) == ["0.weight", "1.bias", "plain"])
      #expect(try checkpoint.tensors.tensor("plain").floats() == (0..<24).map { Float($0) })
    }
  }
}
