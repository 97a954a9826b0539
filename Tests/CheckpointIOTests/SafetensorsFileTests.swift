import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

/// The bytes of a file, put together by hand.
private func file(_ header: String, data: Int = 0) -> Data { file(Array(header.utf8), data: data) }

private func file(_ header: [UInt8], data: Int = 0) -> Data {
  withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) } + Data(header)
    + Data((0..<data).map { UInt8(truncatingIfNeeded: $0) })
}

private func entry(_ name: String, _ dtype: String, _ shape: String, _ begin: Int, _ end: Int) -> String {
  "\"\(name)\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":[\(begin),\(end)]}"
}

struct SafetensorsFileTests {
  enum Complaint: Sendable, Equatable { case header, tensor(String), length(needed: Int, found: Int) }

  struct Case: Sendable, CustomTestStringConvertible {
    let name: String
    let bytes: Data
    let complaint: Complaint
    var testDescription: String { name }

    init(_ name: String, _ bytes: Data, _ complaint: Complaint) {
      (self.name, self.bytes, self.complaint) = (name, bytes, complaint)
    }
  }

  static let rejected: [Case] = {
    let u8 = entry("w", "U8", "[4]", 0, 4)
    let start = { (header: String) in 8 + header.utf8.count }
    return [
      Case("an empty file", Data(), .header), Case("seven bytes", Data(count: 7), .header),
      Case("a header over the limit", withUnsafeBytes(of: UInt64(100_000_001).littleEndian) { Data($0) }, .header),
      Case("a length that is no Int", Data(repeating: 0xFF, count: 16), .header),
      Case(
        "a header longer than the file", withUnsafeBytes(of: UInt64(100).littleEndian) { Data($0) } + Data("{}".utf8),
        .length(needed: 108, found: 10)),
      Case("a header that is not UTF-8", file([0x7B, 0x22, 0xFF, 0x22, 0x3A, 0x31, 0x7D]), .header), Case("no header", file(""), .header),
      Case("not JSON", file("hello"), .header), Case("a list", file("[]"), .header), Case("a byte order mark", file("\u{FEFF}{}"), .header),
      Case("NUL after the object", file("{}\u{0}\u{0}"), .header), Case("text after the object", file("{}x"), .header),
      Case("an unknown type", file("{\(entry("w", "I4", "[8]", 0, 4))}", data: 4), .tensor("w")),
      Case("a negative dimension", file("{\(entry("w", "U8", "[-4]", 0, 4))}", data: 4), .tensor("w")),
      Case("a dimension written as 4.0", file("{\(entry("w", "U8", "[4.0]", 0, 4))}", data: 4), .tensor("w")),
      Case("a dimension written as 4e0", file("{\(entry("w", "U8", "[4e0]", 0, 4))}", data: 4), .tensor("w")),
      Case("a dimension of 1.5", file("{\(entry("w", "U8", "[1.5]", 0, 4))}", data: 4), .tensor("w")),
      Case("a negative offset", file("{\(entry("w", "U8", "[4]", -4, 0))}", data: 4), .tensor("w")),
      Case("an offset written as 4.0", file("{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4.0]}}", data: 4), .tensor("w")),
      Case("one offset", file("{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]}}", data: 4), .tensor("w")),
      Case("three offsets", file("{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}", data: 4), .tensor("w")),
      Case("no dtype", file("{\"w\":{\"shape\":[4],\"data_offsets\":[0,4]}}", data: 4), .tensor("w")),
      Case("no shape", file("{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", data: 4), .tensor("w")),
      Case("no offsets", file("{\"w\":{\"dtype\":\"U8\",\"shape\":[4]}}", data: 4), .tensor("w")),
      Case("a dtype that is no string", file("{\"w\":{\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]}}", data: 4), .tensor("w")),
      Case("a repeated field", file("{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", data: 4), .header),
      Case("repeated metadata", file("{\"__metadata__\":{},\"__metadata__\":{},\(u8)}", data: 4), .header),
      Case("a repeated name", file("{\(u8),\(u8)}", data: 4), .header),
      Case("a tensor given as a list", file("{\"w\":[\"U8\",[4],[0,4]]}", data: 4), .tensor("w")),
      Case("metadata that is no string", file("{\"__metadata__\":{\"a\":1},\(u8)}", data: 4), .header),
      Case("metadata that is a list", file("{\"__metadata__\":[],\(u8)}", data: 4), .header),
      Case("data that begins late", file("{\(entry("w", "U8", "[4]", 2, 6))}", data: 6), .tensor("w")),
      Case("a hole", file("{\(entry("a", "U8", "[2]", 0, 2)),\(entry("b", "U8", "[2]", 3, 5))}", data: 5), .tensor("b")),
      Case("an overlap", file("{\(entry("a", "U8", "[3]", 0, 3)),\(entry("b", "U8", "[3]", 2, 5))}", data: 5), .tensor("b")),
      Case("an end before its begin", file("{\(entry("w", "U8", "[4]", 4, 0))}", data: 4), .tensor("w")),
      Case("two tensors on the same bytes", file("{\(u8),\(entry("v", "U8", "[4]", 0, 4))}", data: 4), .tensor("v")),
      Case("a range longer than the shape", file("{\(entry("w", "U8", "[4]", 0, 5))}", data: 5), .tensor("w")),
      Case("a range shorter than the shape", file("{\(entry("w", "F32", "[4]", 0, 15))}", data: 15), .tensor("w")),
      Case("half a byte", file("{\(entry("w", "F4", "[3]", 0, 1))}", data: 1), .tensor("w")),
      Case("bits that do not fill bytes", file("{\(entry("w", "F6_E2M3", "[2]", 0, 1))}", data: 1), .tensor("w")),
      Case("a size that overflows", file("{\(entry("w", "U8", "[4294967296,4294967296]", 0, 0))}"), .tensor("w")),
      Case("a size that overflows before a zero", file("{\(entry("w", "U8", "[1099511627776,1099511627776,0]", 0, 0))}"), .tensor("w")),
      Case("a dimension over 2⁶³", file("{\(entry("w", "U8", "[9223372036854775808]", 0, 0))}"), .tensor("w")),
      Case("a byte too many", file("{\(u8)}", data: 5), .length(needed: start("{\(u8)}") + 4, found: start("{\(u8)}") + 5)),
      Case("a byte too few", file("{\(u8)}", data: 3), .length(needed: start("{\(u8)}") + 4, found: start("{\(u8)}") + 3)),
      Case("data without tensors", file("{}", data: 1), .length(needed: 10, found: 11)),
      Case("nothing inside something", file("{\(u8),\(entry("z", "F32", "[0]", 2, 2))}", data: 4), .tensor("z")),
    ]
  }()

  @Test(arguments: rejected) func rejects(_ bad: Case) throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "bad.safetensors")
      try bad.bytes.write(to: url)
      do throws(CheckpointError) {
        _ = try SafetensorsFile(url)
        Issue.record("\(bad.name) was accepted")
      } catch {
        switch (bad.complaint, error) {
        case (.header, .malformedHeader(let path, _, let reason)):
          #expect(path == url.path)
          #expect(!reason.isEmpty)
        case (.tensor(let name), .malformedTensor(let path, let tensor, _, let reason)):
          #expect(path == url.path)
          #expect(tensor == name)
          #expect(!reason.isEmpty)
        case (.length(let needed, let found), _):
          #expect(error == .wrongLength(path: url.path, needed: needed, found: found))
        default: Issue.record("\(bad.name): \(error)")
        }
        #expect(error.description.contains(url.path))
        #expect(error.hint != nil)
      }
    }
  }

  static let accepted: [(String, Data, [String: [UInt8]])] = [
    ("nothing at all", file("{}"), [:]), ("white space before", file("  {}"), [:]), ("white space after", file("{} \t\n\r "), [:]),
    ("a scalar", file("{\(entry("s", "U8", "[]", 0, 1))}", data: 1), ["s": [0]]),
    ("an empty name", file("{\(entry("", "U8", "[1]", 0, 1))}", data: 1), ["": [0]]),
    ("an unknown field", file("{\"w\":{\"dtype\":\"U8\",\"note\":[{}],\"shape\":[1],\"data_offsets\":[0,1]}}", data: 1), ["w": [0]]),
    ("null metadata", file("{\"__metadata__\":null,\(entry("w", "U8", "[1]", 0, 1))}", data: 1), ["w": [0]]),
    ("metadata anywhere", file("{\(entry("w", "U8", "[1]", 0, 1)),\"__metadata__\":{\"format\":\"pt\"}}", data: 1), ["w": [0]]),
    (
      "nothing at a boundary",
      file("{\(entry("a", "U8", "[2]", 0, 2)),\(entry("z", "F32", "[0,7]", 2, 2)),\(entry("b", "U8", "[1]", 2, 3))}", data: 3),
      ["a": [0, 1], "z": [], "b": [2]]
    ),
    (
      "nothing at both ends",
      file("{\(entry("x", "F32", "[0]", 0, 0)),\(entry("a", "U8", "[2]", 0, 2)),\(entry("z", "U8", "[0]", 2, 2))}", data: 2),
      ["x": [], "a": [0, 1], "z": []]
    ),
    ("a zero before an overflow", file("{\(entry("w", "U8", "[0,1099511627776,1099511627776]", 0, 0))}"), ["w": []]),
    (
      "entries out of order", file("{\(entry("b", "U8", "[2]", 2, 4)),\(entry("a", "U8", "[2]", 0, 2))}", data: 4),
      ["a": [0, 1], "b": [2, 3]]
    ),
    ("packed floats", file("{\(entry("w", "F4", "[1,4]", 0, 2))} ", data: 2), ["w": [0, 1]]),
  ]

  @Test(arguments: accepted.indices) func accepts(_ index: Int) throws {
    let (name, bytes, contents) = Self.accepted[index]
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "good.safetensors")
      try bytes.write(to: url)
      let file = try SafetensorsFile(url)
      #expect(Set(file.names) == Set(contents.keys), "\(name)")
      for (tensor, expected) in contents {
        #expect(try Array(file.tensor(tensor).bytes) == expected, "\(name)")
        #expect(file.info(tensor)?.byteCount == expected.count)
      }
    }
  }

  @Test func tensorsMayLieAtOddOffsets() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "odd.safetensors")
      let header = "{\(entry("pad", "U8", "[1]", 0, 1)),\(entry("w", "F32", "[2]", 1, 9)),\(entry("h", "BF16", "[1]", 9, 11))}"
      var bytes = file(header + (header.utf8.count % 2 == 0 ? " " : ""))
      bytes += Data([7, 0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0, 0x80, 0x40])
      try bytes.write(to: url)
      let file = try SafetensorsFile(url)
      #expect(file.names == ["pad", "w", "h"])
      #expect(try file.tensor("w").floats() == [1, -2])
      #expect(try file.tensor("h").floats() == [4])
    }
  }

  @Test func namesAreInTheOrderOfTheDataAndUnknownOnesAreMissing() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "order.safetensors")
      try file("{\(entry("a", "U8", "[1]", 1, 2)),\(entry("b", "U8", "[1]", 0, 1))}", data: 2).write(to: url)
      let file = try SafetensorsFile(url)
      #expect(file.names == ["b", "a"])
      #expect(file.info("c") == nil)
      #expect(throws: CheckpointError.missingTensor(name: "c")) { try file.tensor("c") }
    }
  }

  @Test func namesThatOnlyLookAlikeStayApart() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "alike.safetensors")
      try file("{\(entry("\u{E9}", "U8", "[1]", 0, 1)),\(entry("e\u{301}", "U8", "[2]", 1, 3))}", data: 3).write(to: url)
      let file = try SafetensorsFile(url)
      #expect(file.names.count == 2)
      #expect(file.header.entries.map(\.info.shape) == [[1], [2]])
    }
  }

  @Test func aMissingFileIsNamed() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "absent.safetensors")
      #expect(throws: CheckpointError.missingFile(path: url.path)) { try SafetensorsFile(url) }
      do throws(CheckpointError) { _ = try SafetensorsFile(directory) } catch {
        guard case .unreadable(path: directory.path, _) = error else {
          Issue.record("\(error)")
          return
        }
      }
    }
  }

  @Test func theOffsetOfAFaultCountsFromTheStartOfTheFile() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "fault.safetensors")
      try file("{\"w\":tru}").write(to: url)
      do throws(CheckpointError) { _ = try SafetensorsFile(url) } catch {
        guard case .malformedHeader(url.path, 13, _) = error else {
          Issue.record("\(error)")
          return
        }
      }
    }
  }
}
