import ArgumentParser
import CompressKit
import Foundation

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Say how far the making of an output is: complete, running, interrupted, or not begun.")

  @Argument(help: ArgumentHelp("The directory that a run makes, or was to make.", valueName: "output"), completion: .directory)
  var output: String

  @Flag(name: .long, help: "Print the state as JSON.")
  var json = false

  func run() throws {
    let url = URL(userPath: output)
    let state = try OutputState(of: url)
    let journal = RunJournal(at: try OutputState.journalPlace(of: url))
    let phases = journal.map { SweepJournal.progress(of: $0) } ?? []
    guard json else {
      let lines =
        ["\(output): \(Self.words(state))"] + phases.map { "  \($0.passes.joined(separator: ", ")): \($0.finished) of \($0.parts) parts" }
      return try printResult(lines.joined(separator: "\n"))
    }
    var members = [JSON.Member("state", .string(Self.name(state)))]
    if case .beingMade(let holder) = state { members.append(.init("holder", .string(holder))) }
    members.append(
      .init(
        "phases",
        .array(
          phases.map { phase in
            .object([
              .init("passes", .array(phase.passes.map { .string($0) })), .init("parts", .integer(phase.parts)),
              .init("finished", .integer(phase.finished)),
            ])
          })))
    try printResult(JSON.object(members).text(indent: 2))
  }

  private static func name(_ state: OutputState) -> String {
    switch state {
    case .absent: "absent"
    case .foreign: "foreign"
    case .complete: "complete"
    case .beingMade: "running"
    case .interrupted: "interrupted"
    case .replacementInterrupted: "complete-replacement-interrupted"
    }
  }

  private static func words(_ state: OutputState) -> String {
    switch state {
    case .absent: "nothing is there, and nobody makes it"
    case .foreign(let reason): "this is not, or not only, what this program made: \(reason)"
    case .complete: "complete"
    case .beingMade(let holder): "being made by \(holder)"
    case .interrupted: "interrupted; the same command goes on from here, or starts over with --fresh"
    case .replacementInterrupted:
      "complete; a run that was to replace it was interrupted: its command, with --overwrite, goes on from here, or starts over with --fresh"
    }
  }
}
