import Models
import Tensors

/// How the scale of a group is chosen.
public enum ScaleChoice: String, Sendable, Codable, CaseIterable {
  /// The range of the weights fills the grid.
  case minmax
  /// The range is shrunk in steps; every candidate's codes are given their least-squares scale, and the importance-weighted squared error
  /// that leaves decides.
  case clip
  /// As `clip`, over both ways of laying a symmetric grid: its one longer side may serve either sign, so scales may be negative.
  case fullRange = "full_range"
}

/// The scale and zero point of a group of weights.
struct GroupParameters: Equatable {
  var scale: Float
  /// The code of zero: a whole number, or any where the zero point is real.
  var zero: Float
}

/// Chooses scales and zero points for a scheme; scales come out rounded to their stored type.
///
/// Sources: min–max as compressed-tensors' observer computes it, so that codes agree with the peers' bit for bit; the shrink search of GPTQ's
/// `mse` option with squared error and weights; the least-squares step of llama.cpp's `make_qx_quants` and, for biases, `make_qkx2_quants`.
struct ScaleSearch {
  let scheme: QuantizationScheme
  let choice: ScaleChoice
  /// What stored scales are divided by before they are used.
  let divisor: Float
  /// Fractions of the full range that are tried: 1, 0.96, … 0.36, and then the neighbours of the best. Below that nothing is ever chosen
  /// at 3 bits and more, and at 2 bits the least-squares step finds the rest.
  private static let fractions: [Float] = (0...16).map { 1 - Float($0) * 0.04 }

  init(scheme: QuantizationScheme, choice: ScaleChoice, globalScale: Float? = nil) {
    self.scheme = scheme
    self.choice = choice
    divisor = globalScale ?? 1
  }

  /// The factor that codes are multiplied by.
  func effective(_ scale: Float) -> Float { scale / divisor }

  /// - Parameters:
  ///   - weights: the group's.
  ///   - importance: a factor per weight for its squared error; `nil` for all alike.
  func parameters(_ weights: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?) -> GroupParameters {
    let range = Kernel.range(weights)
    if scheme.grid == .float { return floatParameters(weights, importance, amax: max(-range.lowerBound, range.upperBound)) }
    // A bias can put the grid anywhere; a zero point only where zero is one of its points.
    let (low, high) =
      scheme.zeroPoint == .real ? (range.lowerBound, range.upperBound) : (min(range.lowerBound, 0), max(range.upperBound, 0))
    let full = grid(low, high)
    guard choice != .minmax, high > low else { return full }
    switch scheme.zeroPoint {
    case .none: return symmetric(weights, importance, amax: max(-low, high), full)
    case .integer: return shrunk(weights, importance, low, high, full) { leastSquares(weights, importance, $0) }
    case .real: return shrunk(weights, importance, low, high, full) { affineLeastSquares(weights, importance, $0) }
    }
  }

  func error(_ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, _ parameters: GroupParameters) -> Float {
    Kernel.quantizationError(weights, importance: importance, scale: parameters.scale, zero: parameters.zero, top: scheme.top)
  }

  func grid(_ low: Float, _ high: Float) -> GroupParameters {
    switch scheme.zeroPoint {
    case .integer where high > low:
      let scale = stored((high - low) / scheme.top)
      return GroupParameters(scale: scale, zero: min(max((-low / scale).rounded(.toNearestOrEven), 0), scheme.top))
    case .real where high > low:
      let scale = stored((high - low) / scheme.top)
      return biased(scale: scale, bias: low)
    case .real: return biased(scale: stored(abs(low)), bias: low)
    default:
      // A group of zeros gets the middle of the grid as its zero point in any scheme, which is what the peers store.
      return GroupParameters(scale: stored(max(-low, high) / (scheme.top / 2)), zero: scheme.middle)
    }
  }

  /// Least squares decides, not the error of the candidate itself: the candidate only has to find the codes.
  private func symmetric(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, amax: Float, _ full: GroupParameters
  ) -> GroupParameters {
    var best = (gain: -Float.infinity, fraction: Float(1), scale: full.scale)
    let unit = amax / (scheme.top / 2)
    func consider(_ fraction: Float) {
      let (product, square) = Kernel.codeMoments(
        weights, importance: importance, scale: unit * fraction, zero: scheme.middle, top: scheme.top)
      guard square > 0 else { return }
      let gain = product * product / square
      if gain > best.gain { best = (gain, fraction, product / square) }
    }
    for fraction in Self.fractions { consider(fraction) }
    if choice == .fullRange { for fraction in Self.fractions { consider(-fraction) } }
    let coarse = best.fraction
    for step in [Float(-0.02), 0.02] { consider(coarse + step) }
    let found = GroupParameters(scale: stored(best.scale), zero: scheme.middle)
    return error(weights, importance, found) < error(weights, importance, full) ? found : full
  }

  private func shrunk(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, _ low: Float, _ high: Float, _ full: GroupParameters,
    refine: (GroupParameters) -> GroupParameters
  ) -> GroupParameters {
    var best = (parameters: full, fraction: Float(1), error: error(weights, importance, full))
    func consider(_ candidate: GroupParameters, _ fraction: Float) {
      let error = error(weights, importance, candidate)
      if error < best.error { best = (candidate, fraction, error) }
    }
    // A bias has its own centre to shrink towards; a zero point shrinks towards zero.
    let centre = scheme.zeroPoint == .real ? (low + high) / 2 : 0
    func candidate(_ fraction: Float) -> GroupParameters {
      grid(centre + (low - centre) * fraction, centre + (high - centre) * fraction)
    }
    for fraction in Self.fractions.dropFirst() { consider(candidate(fraction), fraction) }
    let coarse = best.fraction
    for step in [Float(-0.02), 0.02] where coarse + step < 1 { consider(candidate(coarse + step), coarse + step) }
    // The codes of the refined scale may differ again, and so may what fits them best.
    for _ in 0..<3 {
      let before = best.error
      consider(refine(best.parameters), best.fraction)
      if best.error == before { break }
    }
    return best.parameters
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

  /// Scale and bias that fit the codes of `start` best.
  private func affineLeastSquares(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, _ start: GroupParameters
  ) -> GroupParameters {
    var (sum, ofCodes, ofSquares, ofWeights, ofProducts) = (0.0, 0.0, 0.0, 0.0, 0.0)
    for index in weights.indices {
      let factor = Double(importance?[index] ?? 1)
      let weight = Double(weights[index])
      let code = Double(min(max((weights[index] / start.scale + start.zero).rounded(.toNearestOrEven), 0), scheme.top))
      sum += factor
      ofCodes += factor * code
      ofSquares += factor * code * code
      ofWeights += factor * weight
      ofProducts += factor * code * weight
    }
    let determinant = sum * ofSquares - ofCodes * ofCodes
    guard determinant > 0 else { return start }
    let scale = stored(Float((sum * ofProducts - ofWeights * ofCodes) / determinant))
    return biased(scale: scale, bias: Float((ofSquares * ofWeights - ofCodes * ofProducts) / determinant))
  }

  /// The bias as it will be stored, expressed as a zero point.
  func biased(scale: Float, bias: Float) -> GroupParameters {
    GroupParameters(scale: scale, zero: -scheme.scaleType.rounded(bias) / scale)
  }

  /// The scale as it will be stored; never zero, because everything is divided by it.
  func stored(_ scale: Float) -> Float {
    let (sign, magnitude) = (scale < 0 ? Float(-1) : 1, abs(scale))
    switch scheme.scaleType {
    case .float8E8M0:
      // The nearest power of two; the exponent is the only thing stored.
      guard magnitude > 0, magnitude.isFinite else { return PowerOfTwoScale.value(magnitude > 0 ? 254 : 0) }
      let exponent = Int(magnitude.exponent) + (magnitude.significand > 1.41421356 ? 1 : 0)
      return PowerOfTwoScale.value(UInt8(min(max(exponent + 127, 0), 254)))
    case .float8E4M3:
      let rounded = MiniFloat.e4m3.rounded(magnitude)
      return rounded == 0 ? 0.125 : rounded
    default: break
    }
    let smallest: Float =
      switch scheme.scaleType {
      case .bfloat16: 0x1p-7
      case .float16: 0x1p-10
      default: 0x1p-23
      }
    guard magnitude > 0 else { return smallest }
    // Normal numbers only: subnormal scales lose the precision they are rounded to.
    let floor: Float = scheme.scaleType == .float16 ? 0x1p-14 : 0x1p-126
    return sign * scheme.scaleType.rounded(max(magnitude, floor))
  }
}

// MARK: - Float grids

extension ScaleSearch {
  /// Scales of E4M3 and E2M1 groups. Min–max as the formats define it; otherwise its neighbours on the scales' own grid are tried too, among
  /// them the one that maps the largest weight of an NVFP4 group to 4 instead of 6 ("four over six").
  private func floatParameters(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, amax: Float
  ) -> GroupParameters {
    let format = scheme.miniFloat
    var candidates: [Float]
    switch scheme.scaleType {
    case .float8E8M0:
      let code = PowerOfTwoScale.code(amax: amax, of: format)
      candidates = [code, code == 0 ? code : code - 1, code == 254 ? code : code + 1].map { PowerOfTwoScale.value($0) }
    case .float8E4M3:
      let full = stored(divisor * (amax / format.largest))
      let code = Int(MiniFloat.e4m3.encode([full])[0])
      let four = Int(MiniFloat.e4m3.encode([stored(divisor * (amax / 4))])[0])
      candidates = [full] + (max(code - 3, 1)...max(min(four + 1, 126), 1)).map { MiniFloat.e4m3.values[$0] }
    default:
      // The grid is as fine near its end as anywhere, so there is nothing to win by clipping.
      candidates = [stored(amax / format.largest)]
    }
    guard choice != .minmax, amax > 0 else { return GroupParameters(scale: candidates[0], zero: 0) }
    var best = (scale: candidates[0], error: Float.infinity)
    for scale in candidates {
      let error = format.error(weights, importance: importance, scale: effective(scale))
      if error < best.error { best = (scale, error) }
    }
    return GroupParameters(scale: best.scale, zero: 0)
  }

  /// The scale that the E4M3 scales of matrices with these largest magnitudes are multiplied by before they are stored: one for all of
  /// them, because runtimes fuse layers that share an input.
  static func globalScale(amax: Float) -> Float { amax > 0 ? MiniFloat.e4m3.largest * MiniFloat.e2m1.largest / amax : 1 }
}

// MARK: - Whole weights

extension ScaleSearch {
  /// The parameters of one group of a weight, which may be several rows high.
  ///
  /// - Parameter importance: a factor per column of the whole weight.
  func parameters(of weight: Matrix, rows: Range<Int>, columns: Range<Int>, importance: [Float]?) -> GroupParameters {
    func find(_ values: UnsafeBufferPointer<Float>, _ factors: [Float]?) -> GroupParameters {
      factors.map { $0.withUnsafeBufferPointer { parameters(values, importance: $0.baseAddress!) } }
        ?? parameters(values, importance: nil)
    }
    if rows.count == 1 {
      return weight.withUnsafeElements { elements in
        let values = UnsafeBufferPointer(start: elements + rows.lowerBound * weight.columns + columns.lowerBound, count: columns.count)
        guard let importance else { return parameters(values, importance: nil) }
        return importance.withUnsafeBufferPointer { parameters(values, importance: $0.baseAddress! + columns.lowerBound) }
      }
    }
    var values: [Float] = []
    values.reserveCapacity(rows.count * columns.count)
    for row in rows { values += weight.elements[row * weight.columns + columns.lowerBound..<row * weight.columns + columns.upperBound] }
    let factors = importance.map { importance in rows.flatMap { _ in importance[columns] } }
    return values.withUnsafeBufferPointer { find($0, factors) }
  }

  /// The codes of some weights of one group.
  func encode(_ weights: UnsafeBufferPointer<Float>, _ parameters: GroupParameters, into codes: UnsafeMutablePointer<UInt8>) {
    switch scheme.grid {
    case .integer: Kernel.quantize(weights, scale: parameters.scale, zero: parameters.zero, top: scheme.top, into: codes)
    case .float: scheme.miniFloat.encode(weights, scale: effective(parameters.scale), into: codes)
    }
  }

  /// Codes, scales and zero points put together, the zero points turned into biases where the scheme has such.
  func matrix(rows: Int, columns: Int, codes: [UInt8], scales: [Float], zeros: [Float]) -> QuantizedMatrix {
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    var zeroPoints: Matrix?
    switch scheme.zeroPoint {
    case .none: break
    case .integer: zeroPoints = Matrix(rows: shape.rows, columns: shape.columns, elements: zeros)
    case .real:
      zeroPoints = Matrix(
        rows: shape.rows, columns: shape.columns, elements: zip(scales, zeros).map { scheme.scaleType.rounded(-$0 * $1) })
    }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes,
      scales: Matrix(rows: shape.rows, columns: shape.columns, elements: scales),
      zeroPoints: zeroPoints, globalScale: scheme.hasGlobalScale ? divisor : nil)
  }
}
