internal import CheckpointIO
internal import Evaluation
internal import Models
internal import Recipes

extension SelfSampling {
  /// What reports call the data.
  static let name = "sampled from the model"

  /// Sequences of a model's own tokens; they begin as its tokenizer begins a text, or else with `bos_token_id`.
  func draw(_ source: CalibrationSource, from model: Model, _ checkpoint: Checkpoint, seed: UInt64) throws -> [[Int32]] {
    var beginning = (try? checkpoint.tokenizer())?.prefix ?? []
    if beginning.isEmpty, let id = checkpoint.config.json["bos_token_id"]?.integer.flatMap({ Int32(exactly: $0) }) { beginning = [id] }
    return try SequenceSampler(model, length: source.length).sequences(
      source.sequences, beginning: Array(beginning.prefix(source.length - 1)), ends: checkpoint.config.endTokens,
      sampling: Sampling(temperature: temperature, topP: topP), seed: seed)
  }
}
