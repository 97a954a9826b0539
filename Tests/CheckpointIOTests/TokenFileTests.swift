import CheckpointIO
import Foundation
import TestSupport
import Testing

struct TokenFileTests {
  /// A NumPy file as `numpy.save` writes it.
  private func array(
    _ type: String, _ shape: String, _ data: Data, fortran: Bool = false, version: UInt8 = 1
  ) -> Data {
    var header = "{'descr': '\(type)', 'fortran_order': \(fortran ? "True" : "False"), 'shape': \(shape), }"
    let prefix = version == 1 ? 10 : 12
    header += String(repeating: " ", count: 63 - (prefix + header.utf8.count) % 64) + "\n"
    let length = UInt32(header.utf8.count)
    let size = version == 1 ? 2 : 4
    return Data([0x93] + Array("NUMPY".utf8) + [version, 0] + (0..<size).map { UInt8(truncatingIfNeeded: length >> UInt32(8 * $0)) })
      + Data(header.utf8) + data
  }

  private func bytes<Element: FixedWidthInteger>(_ values: [Element]) -> Data { values.withUnsafeBytes { Data($0) } }

  private func read(_ data: Data) throws -> TokenFile {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "tokens.npy")
      try data.write(to: url)
      return try TokenFile(contentsOf: url)
    }
  }

  private func reason(_ data: Data) -> String? {
    do { _ = try read(data) } catch CheckpointError.unreadable(let path, let reason) {
      return path.hasSuffix("tokens.npy") ? reason : path
    } catch { return "\(error)" }
    return nil
  }

  @Test func readsEveryIntegerType() throws {
    #expect(try read(array("<i4", "(3,)", bytes([Int32(1), 2, .max]))).tokens == [1, 2, .max])
    #expect(try read(array("<i8", "(3,)", bytes([Int64(0), 5, 70_000]))).tokens == [0, 5, 70_000])
    #expect(try read(array("<u4", "(2,)", bytes([UInt32(9), 10]))).tokens == [9, 10])
    #expect(try read(array("<u2", "(2,)", bytes([UInt16(9), 65535]))).tokens == [9, 65535])
    #expect(try read(array("<i4", "(2,)", bytes([Int32(1), 2]), version: 2)).tokens == [1, 2])
    #expect(try read(array("<i4", "(0,)", Data())).tokens.isEmpty)
  }

  @Test func readsRows() throws {
    let file = try read(array("<i8", "(2, 3)", bytes((0..<6).map { Int64($0) })))
    #expect(file.tokens == [0, 1, 2, 3, 4, 5])
    #expect(file.rowLength == 3)
    #expect(try read(array("<i4", "(1,)", bytes([Int32(1)]))).rowLength == nil)
  }

  @Test func readsWhatTheTestsWrite() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "tokens.npy")
      try TinyModel.write(tokens: [5, 6, 7], to: url)
      #expect(try TokenFile(contentsOf: url).tokens == [5, 6, 7])
    }
  }

  @Test func refusesEverythingElse() {
    #expect(reason(Data("hello".utf8))?.contains("NumPy") == true)
    #expect(reason(Data())?.contains("NumPy") == true)
    #expect(reason(array("<i4", "(2, 2)", bytes([Int32](0..<4)), fortran: true))?.contains("Fortran") == true)
    #expect(reason(array("<f4", "(1,)", Data(count: 4)))?.contains("<f4") == true)
    #expect(reason(array(">i4", "(1,)", Data(count: 4)))?.contains(">i4") == true)
    #expect(reason(array("<i4", "()", Data(count: 4)))?.contains("dimensions") == true)
    #expect(reason(array("<i4", "(1, 1, 1)", Data(count: 4)))?.contains("dimensions") == true)
    #expect(reason(array("<i4", "(3,)", bytes([Int32(1), 2])))?.contains("shorter") == true)
    let whole = array("<i4", "(2,)", bytes([Int32(1), 2]))
    for count in [0, 5, 8, 9, 10, 40, whole.count - 1] { #expect(reason(whole.prefix(count)) != nil, "\(count) bytes") }
    #expect(reason(array("<i4", "(2,)", bytes([Int32(1), -1])))?.contains("element 1") == true)
    #expect(reason(array("<i8", "(1,)", bytes([Int64(1) << 31])))?.contains("element 0") == true)
  }

  @Test func refusesShapesThatAreNone() {
    #expect(reason(array("<i4", "(-1,)", Data(count: 4))) != nil)
    #expect(reason(array("<i4", "(-1, -1)", Data(count: 4))) != nil)
    #expect(reason(array("<i4", "(4611686018427387904, 8)", Data(count: 4))) != nil)
    #expect(reason(array("<i4", "(4611686018427387904,)", Data(count: 4))) != nil)
  }

  @Test func aMissingFileIsNamed() {
    let url = URL(filePath: "/nonexistent/tokens.npy")
    #expect(throws: CheckpointError.missingFile(path: url.path)) { try TokenFile(contentsOf: url) }
  }
}
