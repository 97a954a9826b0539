import ArgumentParser
import CompressKit

struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "List what recipes and checkpoints may name.")

  enum Subject: String, ExpressibleByArgument, CaseIterable { case passes, formats, architectures }

  @Argument(help: "passes, formats or architectures.")
  var subject: Subject

  /// What may be named, with a summary each.
  var rows: [(String, String)] {
    switch subject {
    case .passes: CompressCommand.toolkit.passes.passes.map { ($0.name, $0.summary) }
    case .formats: CompressCommand.toolkit.formats.formats.map { (type(of: $0).name, type(of: $0).summary) }
    case .architectures: CompressCommand.toolkit.architectures.modelTypes.map { ($0, "") }
    }
  }

  func run() throws {
    let rows = rows
    let width = rows.map(\.0.count).max() ?? 0
    for row in rows { try printResult(row.1.isEmpty ? row.0 : row.0 + String(repeating: " ", count: width - row.0.count + 2) + row.1) }
  }
}
