package import Passes

/// What of a model moves.
package struct MovingParameters: Sendable, Equatable {
  /// Codes of quantized weights, by their latents.
  package var codes = false
  /// How far from where it started a latent may go, in steps of the grid; `nil` for as far as it likes.
  package var reach: Float?
  package var scales = false
  package var zeroPoints = false
  /// Weights that are plain numbers.
  package var weights = false
  /// The rank of what is added to weights that are plain numbers and stay themselves; `nil` for nothing.
  package var adapterRank: Int?
  package var seed: UInt64 = 0
  package var norms = false
  package var biases = false
  /// Which linears; all by default.
  package var layers: LayerSelector?

  package init() {}
}

/// Rates of one step, by what moves.
package struct StepRates: Sendable {
  /// In steps of the grid.
  package var codes: Float = 0
  /// As a share of each scale.
  package var scales: Float = 0
  /// In steps of the grid.
  package var zeroPoints: Float = 0
  /// Of plain numbers: weights, norms, biases.
  package var numbers: Float = 0

  package init() {}
}
