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
  /// Fractions of the full range that are tried first: 1, 0.92, … 0.44. Below that nothing is ever chosen at 3 bits and more, and at 2 bits
  /// the least-squares step finds the rest.
  private static let fractions = (0..<8).map { 1 - Float($0) * 0.08 }
  /// The same, for grids whose longer side serves the other sign.
  private static let negative = fractions.map { -$0 }
  /// Steps from the best of them to its neighbours, which are tried then.
  private static let steps: [Float] = [-0.04, -0.03, -0.02, -0.01, 0.01, 0.02, 0.03, 0.04]

  /// - Parameter globalScale: of layers that are fused; those of them whose scheme has none go without.
  init(scheme: QuantizationScheme, choice: ScaleChoice, globalScale: Float? = nil) {
    self.scheme = scheme
    self.choice = choice
    divisor = scheme.hasGlobalScale ? globalScale ?? 1 : 1
  }

  /// The factor that codes are multiplied by.
  func effective(_ scale: Float) -> Float { scale / divisor }

  /// - Parameters:
  ///   - weights: the group's.
  ///   - importance: a factor per weight for its squared error; `nil` for all alike.
  func parameters(_ weights: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?) -> GroupParameters {
    let range = Kernel.range(weights)
    return parameters(weights, importance: importance, range, covering(range))
  }

  private func parameters(
    _ weights: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?, _ range: ClosedRange<Float>, _ full: GroupParameters
  ) -> GroupParameters {
    guard choice != .minmax, range.lowerBound < 0 || range.upperBound > 0 else { return full }
    if scheme.grid == .float { return floatParameters(weights, importance, amax: Self.amax(range), full) }
    switch scheme.zeroPoint {
    case .none: return symmetric(weights, importance, amax: Self.amax(range), full)
    case .integer: return shrunk(weights, importance, range, full) { leastSquares(weights, importance, $0) }
    case .real: return shrunk(weights, importance, range, full) { affineLeastSquares(weights, importance, $0) }
    }
  }

  /// The parameters whose grid just covers a range: min–max.
  func covering(_ range: ClosedRange<Float>) -> GroupParameters {
    if scheme.grid == .float { return GroupParameters(scale: floatCovering(amax: Self.amax(range)), zero: 0) }
    // A bias can put the grid anywhere; a zero point only where zero is one of its points.
    return scheme.zeroPoint == .real
      ? grid(range.lowerBound, range.upperBound) : grid(min(range.lowerBound, 0), max(range.upperBound, 0))
  }

  private static func amax(_ range: ClosedRange<Float>) -> Float { max(-range.lowerBound, range.upperBound) }

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
    // Weights so small that their squares vanish gain nothing, and still have codes.
    var best = (gain: Float(-1), fraction: Float(1), scale: full.scale)
    let unit = amax / (scheme.top / 2)
    func consider(around centre: Float, _ offsets: [Float]) {
      let found = Kernel.bestScale(
        weights, importance: importance, unit: unit, centre: centre, offsets: offsets, zero: scheme.middle, top: scheme.top)
      if found.gain > best.gain { best = (found.gain, centre + offsets[found.index], found.scale) }
    }
    consider(around: 0, Self.fractions)
    if choice == .fullRange { consider(around: 0, Self.negative) }
    consider(around: best.fraction, Self.steps)
    let found = GroupParameters(scale: stored(best.scale), zero: scheme.middle)
    return error(weights, importance, found) < error(weights, importance, full) ? found : full
  }

  private func shrunk(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, _ range: ClosedRange<Float>, _ full: GroupParameters,
    refine: (GroupParameters) -> GroupParameters
  ) -> GroupParameters {
    // A bias has its own centre to shrink towards; a zero point shrinks towards zero.
    let isReal = scheme.zeroPoint == .real
    let (low, high) = isReal ? (range.lowerBound, range.upperBound) : (min(range.lowerBound, 0), max(range.upperBound, 0))
    guard high > low else { return full }
    let centre = isReal ? (low + high) / 2 : 0
    var best = (parameters: full, fraction: Float(1), error: error(weights, importance, full))
    func consider(around fraction: Float, _ offsets: [Float]) {
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * offsets.count) { buffer in
        let zeros = UnsafeMutableBufferPointer(rebasing: buffer[offsets.count...])
        let scales = UnsafeMutableBufferPointer(rebasing: buffer[..<offsets.count])
        for (index, offset) in offsets.enumerated() {
          let share = min(fraction + offset, 1)
          let candidate = grid(centre + (low - centre) * share, centre + (high - centre) * share)
          (scales[index], zeros[index]) = (candidate.scale, candidate.zero)
        }
        let found = Kernel.bestGrid(
          weights, importance: importance, scales: UnsafeBufferPointer(scales), zeros: UnsafeBufferPointer(zeros), top: scheme.top)
        guard found.error < best.error else { return }
        best = (GroupParameters(scale: scales[found.index], zero: zeros[found.index]), fraction + offsets[found.index], found.error)
      }
    }
    consider(around: 0, Self.fractions)
    consider(around: best.fraction, Self.steps)
    // The codes of the refined scale may differ again, and so may what fits them best.
    for _ in 0..<3 {
      let refined = refine(best.parameters)
      let error = error(weights, importance, refined)
      guard error < best.error else { break }
      (best.parameters, best.error) = (refined, error)
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
  /// The scale of E4M3 and E2M1 groups that covers the range as the formats define it.
  private func floatCovering(amax: Float) -> Float {
    scheme.scaleType == .float8E8M0
      ? PowerOfTwoScale.value(PowerOfTwoScale.code(amax: amax, of: scheme.miniFloat))
      : stored(divisor * (amax / scheme.miniFloat.largest))
  }

  /// The neighbours on the scales' own grid of the scale that covers the range, among them the one that maps the largest weight of an NVFP4
  /// group to 4 instead of 6 ("four over six").
  private func floatNeighbours(of full: Float, amax: Float) -> [Float] {
    switch scheme.scaleType {
    case .float8E8M0:
      let code = PowerOfTwoScale.code(amax: amax, of: scheme.miniFloat)
      return [code == 0 ? code : code - 1, code == 254 ? code : code + 1].map { PowerOfTwoScale.value($0) }
    case .float8E4M3:
      let code = Int(MiniFloat.e4m3.encode([full])[0])
      let four = Int(MiniFloat.e4m3.encode([stored(divisor * (amax / 4))])[0])
      // Beside a weight that is far larger than a group, the group's scale rounds to zero, and 0.125 stands in for it, far above.
      let (low, high) = (max(min(code - 3, four), 1), min(max(code, four + 1), 126))
      return (min(low, high)...high).map { MiniFloat.e4m3.values[$0] }
    default:
      // The grid is as fine near its end as anywhere, so there is nothing to win by clipping.
      return []
    }
  }

  private func floatParameters(
    _ weights: UnsafeBufferPointer<Float>, _ importance: UnsafePointer<Float>?, amax: Float, _ full: GroupParameters
  ) -> GroupParameters {
    var best = (scale: full.scale, error: Float.infinity)
    for scale in [full.scale] + floatNeighbours(of: full.scale, amax: amax) {
      let error = scheme.miniFloat.error(weights, importance: importance, scale: effective(scale))
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
  /// The parameters of one group of a weight, which may be several rows high, and those that would cover its range.
  ///
  /// - Parameters:
  ///   - first: the first of the rows, which lie `stride` weights apart.
  ///   - importance: a factor per column of the whole weight.
  func parameters(
    _ first: UnsafePointer<Float>, stride: Int, rows: Int, columns: Range<Int>, _ importance: [Float]?
  ) -> (parameters: GroupParameters, covering: GroupParameters) {
    func find(_ values: UnsafeBufferPointer<Float>, _ factors: UnsafePointer<Float>?) -> (GroupParameters, GroupParameters) {
      let range = Kernel.range(values)
      let covering = covering(range)
      return (parameters(values, importance: factors, range, covering), covering)
    }
    if rows == 1 {
      let values = UnsafeBufferPointer(start: first + columns.lowerBound, count: columns.count)
      guard let importance else { return find(values, nil) }
      return importance.withUnsafeBufferPointer { find(values, $0.baseAddress! + columns.lowerBound) }
    }
    var values: [Float] = []
    values.reserveCapacity(rows * columns.count)
    for row in 0..<rows { values += UnsafeBufferPointer(start: first + row * stride + columns.lowerBound, count: columns.count) }
    guard let importance else { return values.withUnsafeBufferPointer { find($0, nil) } }
    let factors = (0..<rows).flatMap { _ in importance[columns] }
    return values.withUnsafeBufferPointer { find($0, factors) }
  }

  /// The codes of some weights of one group.
  func encode(_ weights: UnsafeBufferPointer<Float>, _ parameters: GroupParameters, into codes: UnsafeMutablePointer<UInt8>) {
    switch scheme.grid {
    case .integer: Kernel.quantize(weights, scale: parameters.scale, zero: parameters.zero, top: scheme.top, into: codes)
    case .float: scheme.miniFloat.encode(weights, scale: effective(parameters.scale), into: codes)
    }
  }

  /// What some codes of one group stand for.
  func decode(_ codes: UnsafeBufferPointer<UInt8>, _ parameters: GroupParameters, into out: UnsafeMutablePointer<Float>) {
    switch (scheme.grid, scheme.zeroPoint) {
    case (.float, _): scheme.miniFloat.decode(codes, scale: effective(parameters.scale), into: out)
    case (.integer, .real): Kernel.dequantize(codes, scale: parameters.scale, bias: bias(parameters), into: out)
    case (.integer, _): Kernel.dequantize(codes, scale: parameters.scale, zero: parameters.zero, into: out)
    }
  }

  /// The bias that a real zero point is stored as.
  private func bias(_ parameters: GroupParameters) -> Float { scheme.scaleType.rounded(-parameters.scale * parameters.zero) }

  /// Codes, scales and zero points put together, the zero points turned into biases where the scheme has such.
  func matrix(rows: Int, columns: Int, codes: [UInt8], scales: [Float], zeros: [Float]) -> QuantizedMatrix {
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    var zeroPoints: Matrix?
    switch scheme.zeroPoint {
    case .none: break
    case .integer: zeroPoints = Matrix(rows: shape.rows, columns: shape.columns, elements: zeros)
    case .real:
      zeroPoints = Matrix(
        rows: shape.rows, columns: shape.columns, elements: zip(scales, zeros).map { bias(GroupParameters(scale: $0, zero: $1)) })
    }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes,
      scales: Matrix(rows: shape.rows, columns: shape.columns, elements: scales),
      zeroPoints: zeroPoints, globalScale: scheme.hasGlobalScale ? divisor : nil)
  }
}
