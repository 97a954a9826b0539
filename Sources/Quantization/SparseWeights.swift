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

  /// What the report says of a weight's zeros; nothing of a dense weight's.
  func sparsityMetrics(_ zeros: (before: Double, now: Double)) -> [String: Double] {
    zeros.before >= sparse ? ["sparsity": zeros.now] : [:]
  }

  func recordLostZeros(
    _ name: LinearName, in part: any ModelPart, _ zeros: (before: Double, now: Double), _ context: PassContext
  ) throws(UnwantedFallback) {
    guard zeros.before >= sparse, zeros.now < zeros.before else { return }
    func percent(_ share: Double) -> String { "\((share * 1000).rounded() / 10) %" }
    try context.recordFallback(
      name, in: part, "of \(percent(zeros.before)) zeros \(percent(zeros.now)) are left: a grid with real zero points has none")
  }
}
