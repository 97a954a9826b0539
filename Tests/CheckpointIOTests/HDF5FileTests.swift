import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

struct HDF5FileTests {
  @Test(arguments: ["plain.h5", "packed.h5", "latest.h5", "userblock.h5", "links.h5"])
  func readsWhatH5pyWrites(_ file: String) throws {
    try ForeignFiles.compare(try HDF5File(ForeignFiles.url(file)), with: file)
  }

  @Test(arguments: [
    ("cycle.h5", "linked twice"), ("bomb.h5", "declared"), ("arrays.npz", "signature"),
  ])
  func refusesWithTheReason(_ file: String, _ reason: String) throws {
    let url = try ForeignFiles.url(file)
    let complaint = try #require(ForeignFiles.complaint { try HDF5File(url) })
    #expect(complaint.contains(reason), "\(complaint)")
  }

  /// What one reads must not keep from the rest.
  @Test(arguments: [
    ("external_link.h5", "not to an object of this file"), ("soft_link.h5", "not to an object of this file"),
    ("external_data.h5", "in other files"), ("virtual.h5", "in other files"), ("lzf.h5", "filter 32000"), ("strings.h5", "HDF5 type"),
  ])
  func leavesOutWhatIsNotReadAndSaysSo(_ file: String, _ reason: String) throws {
    let source = try HDF5File(ForeignFiles.url(file))
    #expect(source.names.isEmpty && source.remarks.count == 1 && source.remarks[0].contains(reason), "\(source.remarks)")
    let error = #expect(throws: CheckpointError.self) { try source.tensor("a") }
    #expect(error?.description.contains(reason) == true && error?.hint == nil, "\(String(describing: error))")
  }

  @Test func linksAreOtherNamesAndOddObjectsAreNamed() throws {
    let source = try HDF5File(ForeignFiles.url("links.h5"))
    let reasons = [
      "dangling": "not to an object of this file", "elsewhere": "not to an object of this file", "round": "not to an object of this file",
      "through": "not to an object of this file", "group": "other than a dataset", "null": "without elements", "words": "HDF5 type",
      "lzf": "filter 32000",
    ]
    #expect(source.remarks.count == reasons.count)
    for (name, reason) in reasons {
      #expect(source.remarks.contains { $0.hasPrefix("\"\(name)\"") && $0.contains(reason) }, "\(name)")
      #expect(
        ForeignFiles.complaint {
          _ = try source.tensor(name); return source
        }?.contains(reason) == true, "\(name)")
    }
  }

  @Test func everyTruncationIsRefused() throws {
    let whole = try Data(contentsOf: ForeignFiles.url("packed.h5"))
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "cut.h5")
      for count in stride(from: 0, to: whole.count, by: 97) {
        try whole.prefix(count).write(to: url)
        #expect(throws: CheckpointError.self) { try HDF5File(url) }
      }
    }
  }

  @Test func writesWhatItReads() async throws {
    try await Places.withTemporaryDirectory { directory in
      var random = KeyedRandomness(seed: 1, key: "hdf5")
      var tensors: [NamedTensor] = []
      for dtype in DType.allCases where dtype != .complex64 && dtype.bitCount >= 8 {
        for (number, shape) in [[], [3], [0, 2], [5, 7], [2, 3, 4], [100, 300]].enumerated() {
          let count = shape.reduce(dtype.bitCount / 8, *)
          // Booleans are 0 and 1.
          let bytes = Data((0..<count).map { _ in UInt8.random(in: 0...(dtype == .bool ? 1 : 255), using: &random) })
          tensors.append(NamedTensor(name: "model.\(dtype.rawValue).π\(number)", tensor: Tensor(dtype: dtype, shape: shape, bytes: bytes)))
        }
      }
      // More than one chunk, with edges that fill none.
      let wide = Tensor((0..<3 * 200_003).map { Float($0 % 1000) }, shape: [3, 200_003], dtype: .float32)
      tensors.append(NamedTensor(name: "wide", tensor: wide))
      let place = directory.appending(path: "written")
      let writer = try HDF5Writer(to: place)
      try await writer.append(tensors)
      try await writer.finish(files: [CheckpointFile("config.json", .text("{\"model_type\":\"llama\"}"))])
      let source = try Checkpoint(place).tensors
      #expect(source is HDF5File)
      #expect(Set(source.names) == Set(tensors.map(\.name)))
      for named in tensors {
        let found = try source.tensor(named.name)
        #expect(
          found.dtype == named.tensor.dtype && found.shape == named.tensor.shape && found.bytes == named.tensor.bytes, "\(named.name)")
      }
    }
  }

  @Test func theSameTensorsMakeTheSameBytes() async throws {
    try await Places.withTemporaryDirectory { directory in
      let files = ["a", "b"].map { directory.appending(path: $0) }
      for place in files {
        let writer = try HDF5Writer(to: place)
        try await writer.append([
          NamedTensor(name: "a", tensor: Tensor([Float](repeating: 2, count: 5000), shape: [5000], dtype: .bfloat16))
        ])
        try await writer.finish(files: [])
      }
      #expect(try Data(contentsOf: files[0].appending(path: "model.h5")) == Data(contentsOf: files[1].appending(path: "model.h5")))
    }
  }

  @Test func refusesWhatHDF5CannotHold() async throws {
    try await Places.withTemporaryDirectory { directory in
      let writer = try HDF5Writer(to: directory.appending(path: "written"))
      let packed = Tensor(dtype: .float4E2M1, shape: [2], bytes: Data(count: 1))
      await #expect(throws: CheckpointError.unusableType(tensor: "a", dtype: "F4", use: "an HDF5 dataset")) {
        try await writer.append([NamedTensor(name: "a", tensor: packed)])
      }
      let sound = Tensor([1], shape: [1], dtype: .float32)
      for name in ["", ".", "a/b"] {
        await #expect(throws: CheckpointError.self) { try await writer.append([NamedTensor(name: name, tensor: sound)]) }
      }
      await #expect(throws: CheckpointError.self) {
        try await writer.append([NamedTensor(name: "twice", tensor: sound), NamedTensor(name: "twice", tensor: sound)])
      }
      await writer.abandon()
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    }
  }
}
