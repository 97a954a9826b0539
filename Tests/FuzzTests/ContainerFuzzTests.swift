import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

/// Readers of containers against damaged files.
@Suite(.serialized) struct ContainerFuzzTests {
  @Test(arguments: targets) func survives(_ target: FuzzTarget) throws { try target.attack(files: 600) }

  private static func fixture(_ name: String) throws -> Data {
    try Data(contentsOf: Places.root.appending(path: "Tests/CheckpointIOTests/Fixtures/\(name)"))
  }

  private static func readAll(_ source: any TensorSource) throws {
    for name in source.names {
      let tensor = try source.tensor(name)
      // Every byte is there, and a mapped one can be touched.
      _ = tensor.bytes.reduce(UInt8(0), &+)
    }
  }

  private static func target(
    _ name: String, _ suffix: String = "bin", corpus: @escaping @Sendable () throws -> [Data],
    wrap: @escaping @Sendable (Data) -> Data = { $0 }, _ open: @escaping @Sendable (URL) throws -> any TensorSource
  ) -> FuzzTarget {
    FuzzTarget(
      name: name, suffix: suffix, corpus: corpus, wrap: wrap, read: { try readAll(try open($0)) }, allows: { $0 is CheckpointError })
  }

  private static let headers: @Sendable () throws -> [Data] = {
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 2, 2), }"].map {
      text in
      let header = [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(text.utf8.count), 0] + Array(text.utf8)
      return Data(header + [UInt8](repeating: 7, count: 16))
    }
  }

  private static let llama2c: @Sendable () throws -> [Data] = {
    let sizes: [Int32] = [4, 3, 1, 2, 1, 5, 2]
    let legacy = sizes.withUnsafeBytes { Data($0) } + Data(count: 4 * 120)
    let version = ([0x616B_3432, 1] + sizes).withUnsafeBytes { Data($0) } + [1] + Data(count: 219 + 4 * 116)
    return [legacy, version]
  }

  private static let safetensors: @Sendable () throws -> [Data] = {
    let texts = [
      "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[16,19]}}",
      "{\"x\":{\"dtype\":\"F4\",\"shape\":[1,4],\"data_offsets\":[0,2]},\"y\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[2,4]}}",
    ]
    return zip(texts, [19, 4]).map { text, size in
      withUnsafeBytes(of: UInt64(text.utf8.count).littleEndian) { Data($0) } + Data(text.utf8) + Data(count: size)
    }
  }

  private static func corpus(_ name: String) throws -> Data {
    try Data(contentsOf: Places.root.appending(path: "Tests/FuzzTests/Corpus/\(name)"))
  }

  static let targets: [FuzzTarget] = [
    target("safetensors", "safetensors", corpus: safetensors) { try SafetensorsFile($0) },
    target("gguf", "gguf", corpus: { try ["gguf-golden.gguf", "gguf-llama.gguf"].map(corpus) }) { try GGUFFile($0) },
    target("gguf-checkpoint", "gguf", corpus: { [try corpus("gguf-llama.gguf")] }) { try Checkpoint($0).tensors },
    target("pytorch", "pt", corpus: { try ["state.bin", "views.pt", "deflated.pt"].map(fixture) }) { try PyTorchFile($0) },
    target(
      "pickle", "pt", corpus: { try ["state.pkl", "views.pkl", "training.pkl"].map(corpus) },
      wrap: { pickle in
        let storages: KeyValuePairs<String, Data> = [
          "x/data.pkl": pickle, "x/data/0": Data(count: 96), "x/data/1": Data(count: 8), "x/data/2": Data(count: 8),
          "x/data/3": Data(count: 24),
        ]
        return StoredArchive.bytes(storages)
      }
    ) { url in
      // Storages are not those of the corpus: only what the pickle does is of interest.
      do { return try PyTorchFile(url) } catch let error as CheckpointError {
        if case .malformedTensor = error { return MemoryTensorSource([]) }
        throw error
      }
    },
    target("npz", "npz", corpus: { try ["arrays.npz", "compressed.npz"].map(fixture) }) { try NumpyArchive($0) },
    target("hdf5", "h5", corpus: { try ["plain.h5", "packed.h5", "latest.h5"].map(fixture) }) { try HDF5File($0) },
    target("npy-header", "npz", corpus: headers, wrap: { StoredArchive.bytes(["a.npy": $0]) }) { try NumpyArchive($0) },
    target("llama2c", corpus: llama2c) { try Llama2CFile($0) },
    target("container", corpus: { try llama2c() + safetensors() }) { url in
      try Container(of: url).open(url).tensors
    },
  ]
}
