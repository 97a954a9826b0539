import ArgumentParser
import CompressKit

struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "List what recipes and checkpoints may name.")

  enum Subject: String, ExpressibleByArgument, CaseIterable { case passes, formats, architectures }

  @Argument(help: "passes, formats or architectures.")
  var subject: Subject

  func run() throws {
    let rows: [(String, String)] =
      switch subject {
      case .passes: CompressCommand.passes.passes.map { ($0.name, $0.summary) }
      case .formats: FormatCatalog.standard.formats.map { (type(of: $0).name, type(of: $0).summary) }
      case .architectures: ArchitectureCatalog.standard.modelTypes.map { ($0, "") }
      }
    let width = rows.map(\.0.count).max() ?? 0
    for row in rows { try printResult(row.1.isEmpty ? row.0 : row.0 + String(repeating: " ", count: width - row.0.count + 2) + row.1) }
  }
}
