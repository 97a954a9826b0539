public import Foundation
internal import StrictJSON

/// What a run keeps of its work beside its output, in the directory `.NAME.compress-journal`: a run that died is taken up again by the next
/// one with the same output, if that is the same run.
///
/// Whoever opens it holds the output's lock, so that no two runs write to one journal. Which run it is of stands in `journal.json`; that file
/// comes first and goes last, and nothing without it is ever taken for a journal.
public struct RunJournal: Sendable {
  /// What makes a run this run, in the order in which differences are told.
  public typealias Identity = [(name: String, value: String)]

  public let directory: URL
  private static let identityName = "journal.json"
  private static let program = JSON.Member("program", .string("compress"))

  /// Takes up the journal at a place, or begins one.
  ///
  /// - Parameter fresh: whether what another run left there is thrown away.
  /// - Throws: `OtherRun` where it is of another run; `CheckpointError.cannotWrite`, also where something else has its name.
  package init(at directory: URL, of run: Identity, fresh: Bool) throws {
    self.directory = directory
    let files = FileManager.default
    if files.fileExists(atPath: directory.path) {
      let kept = Self.identity(in: directory)
      if let kept, !fresh {
        let differences = Self.differences(kept, run)
        guard differences.isEmpty else { throw OtherRun(journal: directory.path, differences: differences) }
        return
      }
      let names = (try? files.contentsOfDirectory(atPath: directory.path)) ?? ["?"]
      guard kept != nil || names.allSatisfy({ $0 == Self.identityName + ".new" }) else {
        throw CheckpointError.cannotWrite(
          path: directory.path, reason: "something of this name is in the way that is no journal of this program; move it")
      }
      remove()
    }
    guard mkdir(directory.path, 0o777) == 0 else { throw CheckpointError.cannotWrite(path: directory.path, reason: SystemError.text) }
    let text = JSON.object([Self.program, .init("run", .object(run.map { .init($0.name, .string($0.value)) }))]).text(indent: 2) + "\n"
    try DurableFile.write(Data(text.utf8), to: directory.appending(path: Self.identityName))
  }

  /// The journal at a place, whichever run it is of; `nil` where there is none.
  public init?(at directory: URL) {
    guard Self.identity(in: directory) != nil else { return nil }
    self.directory = directory
  }

  /// Takes the journal away, what says that it is one last.
  public func remove() {
    let files = FileManager.default
    for name in (try? files.contentsOfDirectory(atPath: directory.path)) ?? [] where name != Self.identityName {
      try? files.removeItem(at: directory.appending(path: name))
    }
    try? files.removeItem(at: directory)
  }

  // MARK: The end

  private static let doneName = "done.json"

  /// What a directory keeps when it is renamed; `nil` where there is none.
  private static func number(of directory: URL) -> String? {
    var entry = stat()
    return lstat(directory.path, &entry) == 0 && entry.st_mode & S_IFMT == S_IFDIR ? "\(entry.st_dev) \(entry.st_ino)" : nil
  }

  /// Writes down that a directory, once it has the output's name, is all that the journal was for: a run that is killed between the two
  /// leaves either of them, and both can be told for what they are.
  package func markDone(by directory: URL) throws(CheckpointError) {
    let text = JSON.object([Self.program, .init("directory", .string(Self.number(of: directory) ?? ""))]).text() + "\n"
    try DurableFile.write(Data(text.utf8), to: self.directory.appending(path: Self.doneName))
  }

  /// Whether an output is what the journal was for, so that nothing is left to go on with.
  package func isDone(with output: URL) -> Bool {
    guard let text = try? Data(contentsOf: directory.appending(path: Self.doneName)), let json = try? JSON(parsing: text) else {
      return false
    }
    return Self.number(of: output).map { json["directory"] == .string($0) } ?? false
  }

  /// What the run that it is of was told.
  public subscript(_ name: String) -> String? { Self.identity(in: directory)?.first { $0.name == name }?.value }

  private static func identity(in directory: URL) -> Identity? {
    guard let text = try? Data(contentsOf: directory.appending(path: identityName)), let json = try? JSON(parsing: text),
      json[program.key] == program.value, let members = json["run"]?.members
    else { return nil }
    return members.compactMap { member in member.value.string.map { (member.key, $0) } }
  }

  private static func differences(_ kept: Identity, _ run: Identity) -> [String] {
    run.compactMap { name, value in
      let before = kept.first { $0.name == name }?.value ?? "nothing"
      guard before != value else { return nil }
      let (old, new) = (before.split(separator: "\n"), value.split(separator: "\n"))
      guard old.count > 1 || new.count > 1 else { return "\(name): \(before) then, \(value) now" }
      func only(_ lines: [Substring], in others: [Substring]) -> String {
        let own = lines.filter { !others.contains($0) }.map { $0.trimmingCharacters(in: .whitespaces) }
        return own.isEmpty ? "nothing else" : own.prefix(3).joined(separator: ", ") + (own.count > 3 ? ", …" : "")
      }
      return "\(name): \(only(old, in: new)) then, \(only(new, in: old)) now"
    }
  }
}

/// What an interrupted run has kept is not as it was written.
public struct DamagedJournal: Error, Equatable, Sendable, CustomStringConvertible {
  public let file: String
  public let reason: String

  package init(file: String, reason: String) {
    self.file = file
    self.reason = reason
  }

  public var description: String { "what an interrupted run has kept is damaged: \(file): \(reason)" }
}

/// An interrupted run with the same output was another one.
public struct OtherRun: Error, Equatable, Sendable, CustomStringConvertible {
  public let journal: String
  /// What differs, in words.
  public let differences: [String]
  public var description: String {
    "an interrupted run with this output, kept in \(journal), was another one: \(differences.joined(separator: "; "))"
  }
}
