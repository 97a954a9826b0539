import ArgumentParser
import CompressKit

struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List what recipes and checkpoints may name, or explain the options of a pass.")

  enum Subject: String, ExpressibleByArgument, CaseIterable { case passes, formats, architectures }

  @Argument(help: "passes, formats or architectures.")
  var subject: Subject

  @Argument(
    help: ArgumentHelp("A pass, whose options are explained.", valueName: "pass"),
    completion: .list(PassCatalog.standard.names))
  var name: String?

  @Flag(name: .long, help: "Print one JSON array.")
  var json = false

  func validate() throws {
    guard name == nil || subject == .passes else { throw ValidationError("only passes have options to explain: compress list passes NAME") }
  }

  /// What may be named, with a summary each.
  var rows: [(name: String, summary: String)] {
    switch subject {
    case .passes: CompressCommand.toolkit.passes.passes.map { ($0.name, $0.summary) }
    case .formats: CompressCommand.toolkit.formats.formats.map { (type(of: $0).name, type(of: $0).summary) }
    case .architectures: CompressCommand.toolkit.architectures.modelTypes.map { ($0, "") }
    }
  }

  func run() throws {
    if let name { return try explain(name) }
    let rows = rows
    if json {
      let entries = rows.map { row in
        JSON.object([.init("name", .string(row.name))] + (row.summary.isEmpty ? [] : [.init("summary", .string(row.summary))]))
      }
      return try printResult(JSON.array(entries).text(indent: 2))
    }
    let width = rows.map(\.name.count).max() ?? 0
    for row in rows {
      try printResult(row.summary.isEmpty ? row.name : row.name + String(repeating: " ", count: width - row.name.count + 2) + row.summary)
    }
  }

  /// - Throws: `OptionError` for a pass that is not there.
  private func explain(_ name: String) throws {
    let catalog = CompressCommand.toolkit.passes
    guard let pass = catalog[name], let options = catalog.options(of: name) else {
      throw OptionError(option: "list passes", value: name, known: catalog.names)
    }
    if json { return try printResult(JSON.array(options.map(\.json)).text(indent: 2)) }
    try printResult("\(name): \(pass.summary)\n\n" + options.map(\.text).joined(separator: "\n"))
  }
}

extension PassOption {
  fileprivate var json: JSON {
    .object([
      .init("name", .string(path)), .init("type", .string(type)), .init("values", .array(choices.map { .string($0) })),
      .init("default", standard.map { .string($0) } ?? .null), .init("description", sentence.map { .string($0) } ?? .null),
    ])
  }

  /// The option with its type and default, and below it what it does and may be.
  fileprivate var text: String {
    var lines = ["\(path)  (\(type)\(standard.map { ", default \($0)" } ?? ""))"]
    if let sentence { lines.append("    " + sentence) }
    if !choices.isEmpty { lines.append("    one of: " + choices.joined(separator: ", ")) }
    return lines.joined(separator: "\n")
  }
}
