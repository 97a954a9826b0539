import CompressKit
import Foundation

/// Opens a checkpoint, makes four bits of its weights by GPTQ, saves and scores that, and opens what was saved.
///
/// - Parameter source: a directory or one file, in any format that is read.
func fourBits(
  of source: URL, fittedTo calibration: CalibrationSource, scoredOn text: EvaluationSource, into output: URL
) async throws -> (model: Model, report: CompressionReport) {
  let checkpoint = try Checkpoint(source)
  var gptq = GPTQ()
  gptq.bits = 4
  gptq.groupSize = .auto
  gptq.layers = LayerSelector(exclude: ["layers.0.*"])

  var recipe = Recipe(passes: [gptq])
  recipe.calibration = calibration
  recipe.evaluation = text
  recipe.output.format = "compressed-tensors"

  let report = try await Compressor(recipe: recipe).run(checkpoint, to: output)
  return (try Model(Checkpoint(output)), report)
}
