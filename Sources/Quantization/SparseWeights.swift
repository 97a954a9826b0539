import Models
import Passes
import Tensors

/// What quantization owes to weights that were pruned before: zeros stay zeros.
extension WeightQuantizer {
  /// Weights of which at least this share is zero count as sparse; below it zeros are accidents, which nobody relies on.
  private var sparse: Double { 0.05 }

  /// The zeros of a sparse weight; `nil` of a dense one, and where zero is no point of the grid.
  func zerosToKeep(of weight: Matrix, in scheme: QuantizationScheme) -> SparsityMask? {
    guard scheme.zeroPoint != .real, weight.zeroShare >= sparse else { return nil }
    return SparsityMask(zerosOf: weight)
  }

  /// The share of zeros there is now, and there was; `nil` for a dense weight.
  func sparsity(of quantized: QuantizedMatrix, from weight: any Weight) -> (now: Double, before: Double)? {
    let before = weight.dense().zeroShare
    return before >= sparse ? (quantized.dense().zeroShare, before) : nil
  }

  func recordLostZeros(
    _ name: LinearName, in block: Block, _ sparsity: (now: Double, before: Double)?, _ context: PassContext
  ) throws(UnwantedFallback) {
    guard let sparsity, sparsity.now < sparsity.before else { return }
    func percent(_ share: Double) -> String { "\((share * 1000).rounded() / 10) %" }
    try context.recordFallback(
      name, in: block,
      "of \(percent(sparsity.before)) zeros \(percent(sparsity.now)) are left: a grid with real zero points has none")
  }
}
