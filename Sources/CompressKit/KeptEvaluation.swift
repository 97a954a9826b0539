package import CheckpointIO
package import Evaluation
package import Foundation
internal import Tensors

/// The journal of an evaluation on its own, in a directory that the user names, and the sole right to it.
package final class KeptEvaluation {
  /// What the evaluator keeps its work in.
  package let evaluation: EvaluationJournal
  private let journal: RunJournal
  private let lock: OutputLock

  /// Takes up what an interrupted evaluation has kept in a directory, or begins anew.
  ///
  /// - Parameters:
  ///   - models: that are scored.
  ///   - settings: what else the figures depend on, in words.
  ///   - fresh: whether what another evaluation has left there is thrown away.
  /// - Throws: `OtherRun` where it was of other models, tokens or settings; `CheckpointError.busy` while another process has it.
  package init(
    at directory: URL, of models: [Checkpoint], _ evaluator: Evaluator, on tokens: [Int32], settings: String, fresh: Bool
  ) throws {
    lock = try OutputLock(of: directory)
    let settings = "\(Compressor.identity(of: evaluator, on: tokens)); \(settings)"
    var run = Compressor.programIdentity + [("settings", settings)]
    for (index, model) in models.enumerated() {
      run.append((index == 0 ? "model" : "reference", try Fingerprint.of(model)))
    }
    journal = try RunJournal(at: directory, of: run, fresh: fresh)
    evaluation = EvaluationJournal(journal, of: settings)
  }

  /// Takes the journal away: to be called once the figures are told.
  package func end() {
    journal.remove()
    lock.release()
  }

  /// After a failure: whether anything is kept that the same command goes on from.
  package func settle(after error: any Error) -> Bool {
    KeptWork(journal: journal).settle(after: error)
    lock.release()
    return RunJournal(at: journal.directory) != nil
  }
}
