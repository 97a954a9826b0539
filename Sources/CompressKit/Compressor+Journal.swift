internal import CheckpointIO
internal import Foundation
internal import Models
internal import Passes
internal import Recipes
internal import Tensors

/// What a run does about being interrupted.
public enum Resumption: Sendable {
  /// It keeps what it has done, and goes on where an interrupted run with the same output has stopped.
  case goOn
  /// It keeps what it has done, and throws away what an interrupted run has left.
  case startOver
  /// It keeps nothing, and leaves what an interrupted run has left alone.
  case keepNothing
}

extension Compressor {
  /// Whether finished parts are worth their bytes; rounding alone is as fast as writing.
  func keepsParts(_ plan: Plan) -> Bool {
    plan.pipelineUsesCalibration || recipe.passes.contains { $0 is any ModelPass || !$0.analyses.isEmpty }
  }

  /// The journal of this run; `nil` where it could keep nothing.
  ///
  /// - Throws: `OtherRun` where an interrupted run with this output was another one.
  func journal(_ plan: Plan, of checkpoint: Checkpoint, at place: URL) throws -> RunJournal? {
    guard resumption != .keepNothing, keepsParts(plan) || recipe.evaluation != nil else { return nil }
    // Scoring comes after all that is kept.
    var recipe = recipe
    recipe.evaluation = nil
    var run = Self.programIdentity
    run += [
      ("recipe", recipe.yaml), ("strict", "\(strict)"), ("model", try Fingerprint.of(checkpoint)),
      ("calibration", Fingerprint.of(plan.calibration)),
      ("probes", Fingerprint.of(plan.probes)),
      ("statistics", plan.statistics?.stamp.flatMap { Fingerprint.of(file: URL(filePath: $0.path)) } ?? "none"),
    ]
    for teacher in plan.teachers { run.append(("teacher \(teacher.name)", try Fingerprint.of(teacher.checkpoint))) }
    return try RunJournal(at: place, of: run, fresh: resumption == .startOver)
  }

  /// What computes: another program, or the same one with other instructions, may round otherwise.
  static var programIdentity: RunJournal.Identity {
    let program = Bundle.main.executableURL.flatMap(Fingerprint.of(file:)) ?? ""
    return [("program", "\(toolkitVersion) \(program)"), ("instructions", Kernel.instructionSet)]
  }
}

/// What a run has kept, and whether that outlives a failure.
struct KeptWork {
  var journal: RunJournal?
  /// Whether all that is kept is done: what fails from there on is the scoring, of which the journal does not depend.
  var isWhole = false

  /// Takes the journal away where the same run would fail again, or where nothing is in it.
  func settle(after error: any Error) {
    guard let journal, !isWhole && !Self.couldSucceed(after: error) || !SweepJournal.holdsWork(journal) else { return }
    journal.remove()
  }

  /// Whether the same run could succeed another time: it was interrupted, the machine had no room, or somebody has to look at what is damaged.
  private static func couldSucceed(after error: any Error) -> Bool {
    switch (error as? PipelineError)?.cause ?? error {
    case is CancellationError, is ScratchError, is NotEnoughMemory, is DamagedJournal: true
    case CheckpointError.cannotWrite: true
    default: false
    }
  }
}
