public import CheckpointIO
public import Foundation
internal import Passes
public import Recipes

extension CalibrationSource {
  /// Reads the tokens and cuts them into sequences.
  ///
  /// - Returns: as many sequences as there are, at most those asked for, and the name of the file.
  /// - Throws: `CheckpointError` for a file that cannot be read or fills no sequence.
  public func read(for checkpoint: Checkpoint, bases: [URL]) throws -> (sequences: [[Int32]], file: String) {
    let input = try TokenSource(text: text, tokens: tokens, bases: bases)
    let tokens = try input.tokens(for: checkpoint, bos: .never)
    let cut = stride(from: 0, through: tokens.count - length, by: length).prefix(sequences).map { Array(tokens[$0..<$0 + length]) }
    guard !cut.isEmpty else {
      throw CheckpointError.unreadable(
        path: input.file.path, reason: "\(tokens.count) tokens do not fill one calibration sequence of \(length)")
    }
    return (cut, input.file.lastPathComponent)
  }
}

extension Compressor {
  /// The statistics that a recipe names, which must be of this model, of the recipe's data where it names any, and enough for its passes.
  func statistics(_ source: CalibrationSource, for checkpoint: Checkpoint) throws -> StatisticsFile {
    let places = bases + [checkpoint.directory]
    let file = try StatisticsFile(try TokenSource(text: nil, tokens: source.statistics, bases: places).file)
    let hasData = source.text != nil || source.tokens != nil
    try file.check(against: checkpoint.tensors, data: hasData ? try source.read(for: checkpoint, bases: places).sequences : nil)
    for pass in recipe.passes {
      let name = type(of: pass).name
      if pass.isExact { throw StatisticsDoNotSuffice(pass: name, reason: "it changes what the layers after it read") }
      if pass.comparesInputs {
        throw StatisticsDoNotSuffice(pass: name, reason: "it compares inputs with those of the original model (drift_correction)")
      }
      if !pass.analyses.isEmpty, pass.usesCalibration { throw StatisticsDoNotSuffice(pass: name, reason: "it runs the whole model") }
    }
    return file
  }
}
