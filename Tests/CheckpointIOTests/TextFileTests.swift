import Foundation
import TestSupport
import Testing

@testable import CheckpointIO

struct TextFileTests {
  private func texts(
    _ data: Data, _ name: String, form: TextForm? = nil, field: String = "text", separator: String? = nil, limit: Int = .max
  ) throws -> [String] {
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: name)
      try data.write(to: file)
      var texts: [String] = []
      try TextFile(file, form: form, field: field, separator: separator).forEachText { text in
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

  @Test func separatorsCutTexts() throws {
    let text = Data("--a--b----c-".utf8)
    #expect(try texts(text, "x.txt", separator: "--") == ["a", "b", "c-"])
    #expect(try texts(text, "x.txt", separator: "--", limit: 1) == ["a"])
    #expect(try texts(Data("\"a--b\"\n\"c\"".utf8), "x.jsonl", separator: "--") == ["a", "b", "c"])
    // Across the pieces that a file is read in: a megabyte each.
    for shift in 0..<4 {
      let long = String(repeating: "x", count: 1 << 20 - 2 + shift)
      #expect(try texts(Data("\(long)\u{E9}--\(long)".utf8), "x.txt", separator: "\u{E9}--") == [long, long])
    }
  }

  @Test func theBeginningIsCutBetweenCharacters() throws {
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "x.txt")
      try Data("a\u{E9}\u{1F600}b".utf8).write(to: file)
      func beginning(_ limit: Int) throws -> String { try TextFile(file).beginning(limit).text }
      #expect(
        try (0...8).map(beginning) == ["", "a", "a", "a\u{E9}", "a\u{E9}", "a\u{E9}", "a\u{E9}", "a\u{E9}\u{1F600}", "a\u{E9}\u{1F600}b"])
      #expect(try TextFile(file).beginning(7).isWhole == false && TextFile(file).beginning(8).isWhole)
    }
  }

  /// Three quarters of a gigabyte in as many kilobytes: 96 members of 8 MB that gzip has made a thousandth of.
  @Test func whatIsMadeToFillTheMemoryIsRefused() throws {
    try Places.withTemporaryDirectory { directory in
      let (plain, file) = (directory.appending(path: "x"), directory.appending(path: "x.gz"))
      try Data(repeating: 0x61, count: 8 << 20).write(to: plain)
      let gzip = Process()
      gzip.executableURL = URL(filePath: "/bin/gzip")
      gzip.arguments = [plain.path]
      try gzip.run()
      gzip.waitUntilExit()
      let member = try Data(contentsOf: file)
      try Data((0..<96).map { _ in member }.joined()).write(to: file)
      let start = ContinuousClock.now
      #expect(try TextFile(file).beginning(1000).text == String(repeating: "a", count: 1000))
      #expect(start.duration(to: .now) < .milliseconds(500), "no more is inflated than is asked for")
      #expect { try TextFile(file).forEachText { _ in true } } throws: { "\($0)".contains("which no text does") }
    }
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
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "x.bin")
      try Data([1, 0, 2, 0, 3, 0]).write(to: file)
      let found = try TokenFile(contentsOf: file, limit: 2)
      #expect(found.tokens == [1, 2] && found.count == 3)
    }
  }
}
