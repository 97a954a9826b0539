import ArgumentParser
import CompressKit
import Foundation

struct SummaryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "summary", abstract: "Tabulate the reports of many runs: size, perplexity, divergence, time.",
    discussion: """
      Every directory named is an output, or holds outputs; one line for each, in the order of their names. What a report does not say stays \
      empty.
      """)

  @Argument(help: ArgumentHelp("Outputs, or directories of outputs.", valueName: "dir"), completion: .directory)
  var places: [String]

  @Flag(name: .long, help: "Print one JSON array.")
  var json = false

  func validate() throws {
    guard !places.isEmpty else { throw ValidationError("a directory of outputs is needed: compress summary DIR…") }
  }

  func run() throws {
    let rows = try places.flatMap { try Self.outputs(at: URL(userPath: $0), named: $0) }.map { try ReportRow(of: $0) }
    guard json else { return try printResult(ReportRow.table(rows)) }
    try printResult(JSON.array(rows.map(\.json)).text(indent: 2))
  }

  /// The directory itself if it is an output, otherwise the outputs in it.
  ///
  /// - Throws: `CheckpointError` for a directory that is not there, cannot be read, or holds no output.
  private static func outputs(at place: URL, named name: String) throws(CheckpointError) -> [URL] {
    func isOutput(_ directory: URL) -> Bool { FileManager.default.fileExists(atPath: directory.appending(path: ReportRow.fileName).path) }
    guard FileManager.default.fileExists(atPath: place.path) else { throw .missingFile(path: name) }
    if isOutput(place) { return [place] }
    let names: [String]
    do { names = try FileManager.default.contentsOfDirectory(atPath: place.path) } catch {
      throw .unreadable(path: name, reason: SystemError.reason(error))
    }
    // An output that is being made has a name with a leading dot.
    let found = names.filter { !$0.hasPrefix(".") }.sorted().map { place.appending(path: $0) }.filter(isOutput)
    guard !found.isEmpty else { throw .missingFile(path: "\(name)/*/\(ReportRow.fileName)") }
    return found
  }
}

/// What one report says in a line of a table.
struct ReportRow: Sendable {
  static let fileName = "report.json"

  let name: String
  let format: String?
  /// Of the weights' files; of reports that do not say these, of the tensors.
  let bytes: Int?
  let bitsPerWeight: Double?
  let perplexity: (before: Double?, after: Double?)
  /// To the original, in nats.
  let divergence: Double?
  /// Of encoders: the mean cosine of embeddings to the original's.
  let cosine: Double?
  let seconds: Double?

  /// - Throws: `CheckpointError` for a report that cannot be read.
  init(of output: URL) throws(CheckpointError) {
    let file = output.appending(path: Self.fileName)
    guard let bytes = try? Data(contentsOf: file) else { throw .unreadable(path: file.path, reason: "the file cannot be opened") }
    let report: JSON
    do { report = try JSON(parsing: bytes) } catch { throw .unreadable(path: file.path, reason: error.description) }
    guard let sizes = report["sizes"] else {
      throw .unreadable(path: file.path, reason: "it is no report of this program: it has no sizes")
    }
    name = output.standardizedFileURL.lastPathComponent
    format = report["format"]?.string
    self.bytes = (sizes["file_bytes_after"] ?? sizes["bytes_after"])?.integer
    bitsPerWeight = sizes["linear_bits_per_weight"]?.double
    let figures = report["evaluation"]
    perplexity = (figures?["perplexity_before"]?.double, figures?["perplexity_after"]?.double)
    divergence = figures?["kl_divergence"]?.double
    cosine = report["similarity"]?["cosine"]?["pooled"]?["mean"]?.double
    let phases = report["run"]?["phases"]?.elements?.compactMap { $0["seconds"]?.double }
    seconds = phases.map { $0.reduce(0, +) } ?? report["sweep_seconds"]?.double
  }

  /// Columns in which no report says anything are left out.
  static func table(_ rows: [ReportRow]) -> String {
    func text(_ value: Double?, _ places: Int) -> String { value.map { $0.rounded(toPlaces: places) } ?? "" }
    let columns: [(title: String, cell: (ReportRow) -> String)] = [
      ("output", { $0.name }), ("format", { $0.format ?? "" }), ("bytes", { $0.bytes.map(String.init) ?? "" }),
      ("bits/weight", { text($0.bitsPerWeight, 3) }), ("ppl before", { text($0.perplexity.before, 4) }),
      ("ppl after", { text($0.perplexity.after, 4) }), ("KL, nats", { text($0.divergence, 5) }), ("cosine", { text($0.cosine, 5) }),
      ("seconds", { text($0.seconds, 1) }),
    ]
    let filled = columns.filter { column in rows.contains { !column.cell($0).isEmpty } }
    var table = TextTable()
    table.header = filled.map(\.title)
    table.rows = rows.map { row in filled.map { $0.cell(row) } }
    return table.text
  }

  var json: JSON {
    func number(_ value: Double?) -> JSON { value.map { .double($0) } ?? .null }
    return .object([
      .init("output", .string(name)), .init("format", format.map { .string($0) } ?? .null),
      .init("bytes", bytes.map { .integer($0) } ?? .null), .init("bits_per_weight", number(bitsPerWeight)),
      .init("perplexity_before", number(perplexity.before)), .init("perplexity_after", number(perplexity.after)),
      .init("kl_divergence", number(divergence)), .init("cosine", number(cosine)), .init("seconds", number(seconds)),
    ])
  }
}
