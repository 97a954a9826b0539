internal import CheckpointIO
internal import Foundation
internal import Models
internal import Passes
internal import Recipes

extension Compressor {
  /// What is read all through a run: an output that is or holds it is never replaced.
  func inputs(of checkpoint: Checkpoint) -> [URL] {
    let named = [recipe.calibration?.statistics] + recipe.passes.map { ($0 as? any ModelPass)?.teacher }
    return checkpoint.inputs
      + named.compactMap { $0 }.compactMap { try? TokenSource(text: nil, tokens: $0, bases: bases + [checkpoint.directory]).file }
  }

  /// Copies what travels with the weights before the work begins, so that it is of one time, and what cannot be copied is known at once.
  func gather(_ checkpoint: Checkpoint, into stage: StagedDirectory) throws -> Companions {
    let texts = [recipe.calibration?.text, recipe.probes?.text, recipe.evaluation?.text].flatMap { $0?.files ?? [] }
    let data =
      texts.map(\.file)
      + [recipe.calibration?.tokens, recipe.calibration?.statistics, recipe.probes?.tokens, recipe.evaluation?.tokens].compactMap { $0 }
    // Blocks carry the policies of the checkpoint they come from.
    return try checkpoint.travellers().without(Set(data + [CachePolicyFile.name])).gathered(in: stage)
  }
}
