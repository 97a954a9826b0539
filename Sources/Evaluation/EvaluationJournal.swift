package import CheckpointIO
internal import Foundation
internal import Passes
internal import Tensors

/// What an evaluation keeps as it goes, so that another one can go on from there: the scores of finished turns, and the hidden states of the turn
/// that it is in.
///
/// States are kept no more often than costs a fiftieth of the time. What an evaluation with other settings or of other tokens has kept is passed over,
/// and another takes its place.
package final class EvaluationJournal {
  private let directory: URL
  private let run: String
  private let keepsEveryBlock: Bool
  private var turn = KeepingTurn()

  /// - Parameters:
  ///   - run: what makes the figures these figures, beside what the journal itself is of: settings and tokens.
  ///   - keepsEveryBlock: whether states are kept behind every block, whatever that costs.
  package init(_ journal: RunJournal, of run: String, keepsEveryBlock: Bool = false) {
    (directory, self.run, self.keepsEveryBlock) = (journal.directory, run, keepsEveryBlock)
  }

  private static let runWord = "run"
  private static let behindWord = "behind"
  private static let figures = "figures"

  private func file(_ name: String) -> URL { directory.appending(path: "evaluation-\(name).safetensors") }
  private func scoreFile(_ turn: Place) -> URL { file("scores-\(turn.number)") }
  private func stateFile(_ turn: Place, _ model: Int) -> URL { file("states-\(turn.number)-\(model)") }

  /// What a turn's files say of what they are of. How many windows are a turn is a matter of memory, which may have been another one.
  private func run(_ turn: Place) -> String { "\(run), windows \(turn.windows)" }

  private func archive(_ file: URL, of turn: Place) throws -> TensorArchive? {
    guard FileManager.default.fileExists(atPath: file.path) else { return nil }
    let archive = try TensorArchive(file)
    return archive.words[Self.runWord] == run(turn) ? archive : nil
  }

  // MARK: Turns

  /// A turn's number, and the windows that are its own.
  struct Place {
    var number: Int
    var windows: Range<Int>
  }

  struct Turn: Codable {
    var scores: [WindowScore]
    /// What the caches of the models held, all turns up to this one together.
    var caches: [CacheSize]
  }

  /// A turn that an earlier evaluation has finished.
  ///
  /// - Throws: `DamagedJournal`.
  func finished(_ turn: Place) throws -> Turn? { try archive(scoreFile(turn), of: turn)?.value(Self.figures) }

  /// Keeps a finished turn, and takes away the states on the way to it.
  func keep(_ scores: [WindowScore], _ caches: [CacheSize], of turn: Place) throws {
    let figures = try TensorArchive.Item(Self.figures, of: Turn(scores: scores, caches: caches))
    try TensorArchive.write([figures], words: [Self.runWord: run(turn)], to: scoreFile(turn)).commit()
    for model in caches.indices { unlink(stateFile(turn, model).path) }
  }

  // MARK: On the way

  struct States {
    /// Blocks that are behind.
    var behind: Int
    var states: [Matrix]
    var cache: CacheSize
  }

  /// Where an earlier evaluation was in a turn.
  ///
  /// - Throws: `DamagedJournal`.
  func states(of turn: Place, model: Int) throws -> States? {
    let file = stateFile(turn, model)
    guard let archive = try archive(file, of: turn) else { return nil }
    guard let behind = archive.words[Self.behindWord].flatMap({ Int($0) }) else {
      throw DamagedJournal(file: file.path, reason: "it does not say how far it is")
    }
    return States(
      behind: behind, states: try (0..<archive.names.count - 1).map { try archive.matrix("\($0)") }, cache: try archive.value(Self.figures))
  }

  /// Keeps where an evaluation is, if it is time; at the end of a model always, as the other one comes next.
  func keep(_ states: [Matrix], _ cache: CacheSize, behind: Int, of count: Int, turn: Place, model: Int) throws {
    try self.turn.keep(anyway: keepsEveryBlock || behind == count) {
      var items = states.enumerated().map { TensorArchive.Item("\($0)", $1) }
      items.append(try TensorArchive.Item(Self.figures, of: cache))
      try TensorArchive.write(items, words: [Self.runWord: run(turn), Self.behindWord: "\(behind)"], to: stateFile(turn, model)).commit()
    }
  }
}
