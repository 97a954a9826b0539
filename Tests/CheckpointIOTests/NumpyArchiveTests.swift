import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

struct NumpyArchiveTests {
  @Test(arguments: ["arrays.npz", "compressed.npz"])
  func readsWhatNumpyWrites(_ file: String) throws {
    try ForeignFiles.compare(try NumpyArchive(ForeignFiles.url(file)), with: file)
  }

  @Test func objectsAreRefused() throws {
    let url = try ForeignFiles.url("objects.npz")
    #expect(ForeignFiles.complaint { try NumpyArchive(url) }?.contains("'|O'") == true)
  }

  @Test(arguments: [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", "{\"shape\":(2,3),'fortran_order':False,'descr':'<f4'}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
  ])
  func readsHeaders(_ text: String) throws {
    let header = try parse(text)
    #expect(header.dtype == .float32 && header.shape == [2, 3] && !header.isFortranOrder && !header.isBigEndian)
    #expect(header.dataStart == 10 + text.utf8.count)
  }

  @Test(arguments: [
    "", "{}", "[]", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
    "{'descr': 'f4', 'fortran_order': False, 'shape': ()}",
    "{'descr': [('a','<f4')], 'fortran_order': False, 'shape': ()}", "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 3}", "{'descr': '<f4', 'fortran_order': False, 'shape': (3}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}", "{'descr': '|O', 'fortran_order': False, 'shape': ()}",
    "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
  ])
  func refusesHeaders(_ text: String) throws { #expect(throws: NumpyHeader.Malformed.self) { try parse(text) } }

  private func parse(_ text: String) throws -> NumpyHeader {
    let bytes = [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(text.utf8.count & 255), UInt8(text.utf8.count >> 8)] + Array(text.utf8)
    return try bytes.withUnsafeBytes { try NumpyHeader(parsing: $0) }
  }

  @Test func writesWhatItReads() async throws {
    try await Places.withTemporaryDirectory { directory in
      var random = KeyedRandomness(seed: 1, key: "npz")
      var tensors: [NamedTensor] = []
      for (index, dtype) in DType.allCases.enumerated() where NumpyHeader.spelling(of: dtype) != nil {
        for (number, shape) in [[], [3], [0, 2], [5, 7], [2, 3, 4]].enumerated() {
          let count = shape.reduce(dtype.bitCount / 8, *)
          let bytes = Data((0..<count).map { _ in UInt8.random(in: 0...255, using: &random) })
          tensors.append(NamedTensor(name: "model.\(index).π\(number)", tensor: Tensor(dtype: dtype, shape: shape, bytes: bytes)))
        }
      }
      let place = directory.appending(path: "written")
      let writer = try NumpyArchiveWriter(to: place)
      try await writer.append(tensors)
      try await writer.finish(files: [CheckpointFile("config.json", .text("{\"model_type\":\"llama\"}"))])
      let source = try Checkpoint(place).tensors
      #expect(source is NumpyArchive)
      #expect(source.names == tensors.map(\.name))
      for named in tensors {
        let found = try source.tensor(named.name)
        #expect(found.dtype == named.tensor.dtype && found.shape == named.tensor.shape && found.bytes == named.tensor.bytes)
      }
    }
  }

  @Test func refusesWhatNumpyCannotHold() async throws {
    try await Places.withTemporaryDirectory { directory in
      let writer = try NumpyArchiveWriter(to: directory.appending(path: "written"))
      let tensor = Tensor(dtype: .float8E4M3, shape: [1], bytes: Data(count: 1))
      await #expect(throws: CheckpointError.unusableType(tensor: "a", dtype: "F8_E4M3", use: "a NumPy array")) {
        try await writer.append([NamedTensor(name: "a", tensor: tensor)])
      }
      let twice = NamedTensor(name: "b", tensor: Tensor([1], shape: [1], dtype: .float32))
      await #expect(throws: CheckpointError.self) { try await writer.append([twice, twice]) }
      await writer.abandon()
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    }
  }
}
