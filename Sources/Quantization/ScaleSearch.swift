import Models
import Tensors

/// How the scale of a group is chosen.
public enum ScaleChoice: String, Sendable, Codable, CaseIterable {
  /// The range of the weights fills the grid.
  case minmax
  /// The range is shrunk in steps, keeping whatever leaves the smallest importance-weighted squared error, and the best scale is
  /// then moved to the least-squares solution for its codes.
  case clip
}

/// The scale and zero point of a group of weights.
struct GroupParameters: Equatable {
  var scale: Float
  /// The code of zero; a whole number.
  var zero: Float
}

/// Chooses scales and zero points for a scheme; scales come out rounded to their stored type.
///
/// Sources: min–max as compressed-tensors' observer computes it, so that codes agree with the peers' bit for bit; the shrink search of GPTQ's
/// `mse` option with squared error and weights; the least-squares step of llama.cpp's `make_qx_quants`.
struct ScaleSearch {
  let scheme: QuantizationScheme
  let choice: ScaleChoice
  /// Fractions of the full range that are tried: 1, 0.96, … 0.36, and then the neighbours of the best. Below that nothing is ever chosen
  /// at 3 bits and more, and at 2 bits the least-squares step finds the rest.
  private static let fractions: [Float] = (0...16).map { 1 - Float($0) * 0.04 }

  /// - Parameters:
  ///   - weights: the group's.
  ///   - importance: a factor per weight for its squared error; `nil` for all alike.
  func parameters(_ weights: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?) -> GroupParameters {
    let range = Kernel.range(weights)
    let (low, high) = (min(range.lowerBound, 0), max(range.upperBound, 0))
    let full = grid(low, high)
    guard choice == .clip, high > low else { return full }
    var best = (parameters: full, fraction: Float(1), error: error(weights, importance, full))
    func consider(_ fraction: Float) {
      let candidate = grid(low * fraction, high * fraction)
      let error = error(weights, importance, candidate)
      if error < best.error { best = (candidate, fraction, error) }
    }
    for fraction in Self.fractions.dropFirst() { consider(fraction) }
    let coarse = best.fraction
    for step in [Float(-0.02), 0.02] where coarse + step < 1 { consider(coarse + step) }
    let refined = leastSquares(weights, importance, best.parameters)
    return error(weights, importance, refined) < best.error ? refined : best.parameters
  }

  private func error(_ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, _ parameters: GroupParameters) -> Float {
    Kernel.quantizationError(weights, importance: importance, scale: parameters.scale, zero: parameters.zero, top: scheme.top)
  }

  private func grid(_ low: Float, _ high: Float) -> GroupParameters {
    // A group of zeros gets the middle of the grid as its zero point in any scheme, which is what the peers store.
    guard !scheme.symmetric, high > low else {
      return GroupParameters(scale: stored(max(-low, high) / (scheme.top / 2)), zero: scheme.middle)
    }
    let scale = stored((high - low) / scheme.top)
    return GroupParameters(scale: scale, zero: min(max((-low / scale).rounded(.toNearestOrEven), 0), scheme.top))
  }

  /// The scale that fits the codes of `start` best: Σ c·w·q / Σ c·q² with q = code − zero.
  private func leastSquares(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, _ start: GroupParameters
  ) -> GroupParameters {
    let (product, square) = Kernel.codeMoments(
      weights, importance: importance, scale: start.scale, zero: start.zero, top: scheme.top)
    guard square > 0, product > 0 else { return start }
    return GroupParameters(scale: stored(product / square), zero: start.zero)
  }

  /// The scale as it will be stored; never zero, because everything is divided by it.
  func stored(_ scale: Float) -> Float {
    let smallest: Float =
      switch scheme.scaleType {
      case .bfloat16: 0x1p-7
      case .float16: 0x1p-10
      default: 0x1p-23
      }
    guard scale > 0 else { return smallest }
    // Normal numbers only: subnormal scales lose the precision they are rounded to.
    let floor: Float = scheme.scaleType == .float16 ? 0x1p-14 : 0x1p-126
    return scheme.scaleType.rounded(max(scale, floor))
  }
}
