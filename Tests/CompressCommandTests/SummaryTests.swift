import Foundation
import TestSupport
import Testing

@testable import CompressCommand
@testable import CompressKit

/// Many reports in one table.
@Suite struct SummaryTests {
  private func write(_ report: String, _ name: String, in directory: URL) throws {
    let output = directory.appending(path: name)
    try FileManager.default.createDirectory(at: output, withIntermediateDirectories: true)
    try Data(report.utf8).write(to: output.appending(path: "report.json"))
  }

  private static let scored = """
    {"format":"gguf","sizes":{"bytes_after":90,"file_bytes_after":100,"linear_bits_per_weight":4.25},
     "evaluation":{"perplexity_before":20.5,"perplexity_after":21.25,"kl_divergence":0.0123456},
     "run":{"phases":[{"name":"plan","seconds":1.5},{"name":"compress","seconds":2}]}}
    """
  /// As builds wrote it that knew neither format nor phases.
  private static let old = #"{"sizes":{"bytes_after":7,"linear_bits_per_weight":8},"sweep_seconds":3}"#

  @Test func oneLineForEveryOutput() async throws {
    try await Places.withTemporaryDirectory { directory in
      try write(Self.scored, "b", in: directory)
      try write(Self.old, "a", in: directory)
      try write(Self.old, ".c.partial-0", in: directory)
      try Data().write(to: directory.appending(path: "a.txt"))
      let outcome = try await Command.run(["summary", directory.path])
      #expect(outcome.status == 0, "\(outcome.errors)")
      let lines = outcome.output.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: true).map(String.init) }
      #expect(lines.count == 4)
      #expect(lines[0] == "output format bytes bits/weight ppl before ppl after KL, nats seconds".split(separator: " ").map(String.init))
      #expect(lines[2] == ["a", "7", "8.000", "3.0"])
      #expect(lines[3] == ["b", "gguf", "100", "4.250", "20.5000", "21.2500", "0.01235", "3.5"])
      // Outputs one by one, in the order they are named.
      let named = try await Command.run(["summary", "b", "a", "--json"], in: directory)
      let rows = try JSON(parsing: named.output)
      #expect(rows.elements?.map { $0["output"]?.string } == ["b", "a"])
      #expect(rows.elements?[0]["kl_divergence"]?.double == 0.0123456 && rows.elements?[1]["kl_divergence"]?.isNull == true)
    }
  }

  @Test func columnsThatNobodyFillsAreLeftOut() throws {
    try Places.withTemporaryDirectory { directory in
      try write(#"{"sizes":{"bytes_after":7},"similarity":{"cosine":{"pooled":{"mean":0.995}}}}"#, "encoder", in: directory)
      let table = ReportRow.table([try ReportRow(of: directory.appending(path: "encoder"))])
      let lines = table.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
      #expect(lines.first == ["output", "bytes", "cosine"])
      #expect(lines.last?.first == "encoder" && lines.last?.last.flatMap { Double($0) } == 0.995)
    }
  }

  @Test func whatIsNoReportIsNamed() async throws {
    try await Places.withTemporaryDirectory { directory in
      #expect(try await Command.run(["summary"]).status == 64)
      let missing = try await Command.run(["summary", "nowhere"], in: directory)
      #expect(missing.status == 66 && missing.error?.contains("nowhere") == true, "\(missing.errors)")
      let empty = try await Command.run(["summary", directory.path])
      #expect(empty.status == 66 && empty.error?.contains("*/report.json") == true, "\(empty.errors)")
      try write("{\"layers\": []}", "other", in: directory)
      let other = try await Command.run(["summary", directory.path])
      #expect(other.status == 65 && other.error?.contains("no report of this program") == true, "\(other.errors)")
      try write("{", "other", in: directory)
      #expect(try await Command.run(["summary", directory.path]).status == 65)
    }
  }
}
