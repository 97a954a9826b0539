import Foundation
import TestSupport
import Testing

@testable import CheckpointIO

struct TextFileTests {
  private func texts(_ data: Data, _ name: String, form: TextForm? = nil, field: String = "text", limit: Int = .max) throws -> [String] {
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: name)
      try data.write(to: file)
      var texts: [String] = []
      try TextFile(file, form: form, field: field).forEachText { text in
        texts.append(text)
        return texts.count < limit
      }
      return texts
    }
  }

  private func reason(_ data: Data, _ name: String, field: String = "text") -> String {
    do {
      _ = try texts(data, name, field: field)
      return ""
    } catch { return "\(error)" }
  }

  @Test func formsGoByTheName() throws {
    let lines = Data("{\"text\": \"a\\nb\", \"n\": 1}\r\n\n\"c\"\n{\"text\": \"d\"}".utf8)
    #expect(try texts(lines, "x.jsonl") == ["a\nb", "c", "d"])
    #expect(try texts(lines, "x.jsonl", limit: 2) == ["a\nb", "c"])
    #expect(try texts(Data("a\r\nb\n".utf8), "x.txt") == ["a\r\nb\n"])
    #expect(try texts(Data("a\r\n\nb".utf8), "x.txt", form: .lines) == ["a", "", "b"])
    #expect(try texts(Data("{\"q\": \"x\"}\n".utf8), "x.ndjson", field: "q") == ["x"])
    #expect(TextForm(fileName: "a.jsonl.gz") == .jsonLines && TextForm(fileName: "a.txt.gz") == .whole)
  }

  /// Two members one after the other, as `gzip` writes them: printf 'h\u00e9llo\n' | gzip -9n, twice.
  private static let gzip = Data(base64Encoded: "H4sIAAAAAAACA8s4vDInJ58LAIio8/0HAAAAH4sIAAAAAAACA8s4vDInJ58LAIio8/0HAAAA")!

  @Test func gzippedFilesAreKnownByTheirBytes() throws {
    #expect(try texts(Self.gzip, "x.txt") == ["h\u{E9}llo\nh\u{E9}llo\n"])
    #expect(reason(Self.gzip.dropLast(9), "x.gz").contains("cut off"))
    var damaged = Self.gzip
    damaged[12] ^= 0x55
    #expect(reason(damaged, "x.gz").contains("damaged"))
  }

  @Test func mistakesHaveTheirLine() {
    #expect(reason(Data("{\"text\": \"a\"}\n{\"txt\": \"a\"}\n".utf8), "x.jsonl").contains("line 2 has no text under \"text\""))
    #expect(reason(Data("{\"text\": \"a\"}\n{\"text\": a}\n".utf8), "x.jsonl").contains("line 2, column 10"))
    #expect(reason(Data([0x61, 0xFF]), "x.txt").contains("not UTF-8"))
    #expect(throws: CheckpointError.missingFile(path: "/nonexistent")) { try TextFile(URL(filePath: "/nonexistent")) }
  }

  @Test func rawTokenFiles() throws {
    func tokens(_ bytes: [UInt8]) throws -> [Int32] {
      try Places.withTemporaryDirectory { directory in
        let file = directory.appending(path: "x.bin")
        try Data(bytes).write(to: file)
        return try TokenFile(contentsOf: file).tokens
      }
    }
    func header(_ magic: UInt32, _ count: UInt32) -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: 1024)
      for index in 0..<4 {
        bytes[index] = UInt8(truncatingIfNeeded: magic >> (8 * UInt32(index)))
        bytes[8 + index] = UInt8(truncatingIfNeeded: count >> (8 * UInt32(index)))
      }
      return bytes
    }
    #expect(try tokens([1, 0, 255, 255]) == [1, 65535])
    #expect(try tokens(header(20_240_520, 2) + [5, 0, 6, 1]) == [5, 262])
    #expect(try tokens(header(20_240_801, 1) + [5, 0, 1, 0]) == [65541])
    #expect(throws: CheckpointError.self) { try tokens(header(20_240_801, 2) + [5, 0, 1, 0]) }
    #expect(throws: CheckpointError.self) { try tokens([1, 0, 2]) }
  }
}
