public import Tensors

/// How a runtime quantizes the input of a linear before it multiplies. Evaluation does the same, so that the figures are those of the runtime.
///
/// Definitions as in compressed-tensors: integer scales are amax / (2^bits − 1) · 2, E4M3 scales amax / 448, and all arithmetic is in
/// single precision.
public struct InputQuantization: Sendable, Codable, Hashable {
  /// The elements that share a scale.
  public enum Granularity: Sendable, Codable, Hashable {
    /// All tokens of all inputs: the scale is fixed by calibration.
    case tensor
    /// All features of a token.
    case token
    /// Runs of this many features of a token.
    case group(Int)
  }

  public var bits: Int
  public var grid: QuantizationScheme.Grid
  public var granularity: Granularity
  public var symmetric: Bool
  /// What scales are rounded to: `nil` for not at all, E8M0, or E4M3 under a global scale.
  public var scaleType: DType?
  /// The fixed scale of `tensor`, or the global scale that E4M3 scales are divided by; `nil` until it is calibrated.
  public var scale: Float?

  public init(
    bits: Int, grid: QuantizationScheme.Grid = .integer, granularity: Granularity, symmetric: Bool = true, scaleType: DType? = nil,
    scale: Float? = nil
  ) {
    self.bits = bits
    self.grid = grid
    self.granularity = granularity
    self.symmetric = symmetric
    self.scaleType = scaleType
    self.scale = scale
  }

  /// Whether one number has to be found by calibration.
  public var needsCalibration: Bool { granularity == .tensor || scaleType == .float8E4M3 }

  /// That number, for inputs of largest magnitude `amax`.
  public func calibrated(amax: Float) -> InputQuantization {
    guard needsCalibration else { return self }
    var result = self
    // A tensor that is always zero still needs a number to divide by.
    let amax = max(amax, .leastNormalMagnitude * 1e6)
    result.scale = granularity == .tensor ? amax / largest : 448 * 6 / amax
    return result
  }

  private var top: Float { Float((1 << bits) - 1) }
  private var middle: Float { Float(1 << (bits - 1)) }
  private var miniFloat: MiniFloat { bits == 4 ? .e2m1 : .e4m3 }
  /// What the largest magnitude is mapped to.
  private var largest: Float { grid == .float ? miniFloat.largest : top / 2 }

  /// The input as the runtime multiplies it, [tokens × features].
  ///
  /// - Precondition: what needs calibration has been calibrated.
  public func rounded(_ input: Matrix) -> Matrix {
    precondition(!needsCalibration || scale != nil, "the input scale was never calibrated")
    var result = input
    let (columns, rows) = (input.columns, input.rows)
    let size = if case .group(let count) = granularity { count } else { columns }
    result.withUnsafeMutableElements { elements in
      nonisolated(unsafe) let elements = elements
      Parallel.forEach(rows) { row in
        for start in stride(from: 0, to: columns, by: size) {
          round(UnsafeMutableBufferPointer(start: elements + row * columns + start, count: min(size, columns - start)))
        }
      }
    }
    return result
  }

  private func round(_ values: UnsafeMutableBufferPointer<Float>) {
    if granularity == .tensor { return round(values, scale: scale!, zero: middle) }
    let range = Kernel.range(UnsafeBufferPointer(values))
    let (low, high) = (min(range.lowerBound, 0), max(range.upperBound, 0))
    let amax = max(-low, high)
    // A token of zeros stays one whatever it is divided by.
    guard amax > 0 else { return }
    switch scaleType {
    case .float8E8M0:
      round(values, scale: PowerOfTwoScale.value(PowerOfTwoScale.code(amax: amax, of: miniFloat)), zero: 0)
    case .float8E4M3:
      let code = MiniFloat.e4m3.rounded(scale! * (amax / miniFloat.largest))
      round(values, scale: (code == 0 ? 0.125 : code) / scale!, zero: 0)
    default:
      guard symmetric else {
        let scale = (high - low) / top
        return round(values, scale: scale, zero: min(max((-low / scale).rounded(.toNearestOrEven), 0), top))
      }
      round(values, scale: amax / largest, zero: middle)
    }
  }

  private func round(_ values: UnsafeMutableBufferPointer<Float>, scale: Float, zero: Float) {
    switch grid {
    case .float: miniFloat.round(values, scale: scale)
    case .integer: Kernel.roundToGrid(values, scale: scale, zero: zero, top: top)
    }
  }
}

extension InputQuantization: CustomStringConvertible {
  /// In words, such as `int8 token` or `nvfp4`.
  public var description: String {
    switch scaleType {
    case .float8E4M3: return "nvfp4"
    case .float8E8M0: return "mxfp\(bits)"
    default: break
    }
    let size =
      switch granularity {
      case .tensor: "tensor"
      case .token: "token"
      case .group(let count): "g\(count)"
      }
    return "\(grid == .integer ? "int" : "fp")\(bits) \(size)\(symmetric ? "" : " asym")"
  }
}

/// How keys and values are stored in the cache: each by one fixed scale for the whole block or for every key-value head, as vLLM reads them
/// from a checkpoint.
public struct CacheQuantization: Sendable, Codable, Hashable {
  public var key: CacheScale
  public var value: CacheScale

  public init(key: CacheScale, value: CacheScale) {
    self.key = key
    self.value = value
  }

  /// What remains where only some key-value heads do.
  package func keeping(heads: [Int]) -> CacheQuantization { CacheQuantization(key: key.keeping(heads), value: value.keeping(heads)) }

  /// One scale for all heads, the largest: where heads become others, none has one of its own.
  package var wholeBlock: CacheQuantization {
    CacheQuantization(key: CacheScale(grid: key.grid, scale: key.scale), value: CacheScale(grid: value.grid, scale: value.scale))
  }
}

/// A number format of 8 bits with its scale, or with one for every key-value head.
public struct CacheScale: Sendable, Codable, Hashable {
  public var grid: QuantizationScheme.Grid
  /// The largest where heads have their own.
  public var scale: Float
  /// One for each key-value head; `nil` where `scale` is that of all.
  public private(set) var headScales: [Float]?

  /// - Parameter amax: the largest magnitude that was seen.
  public init(grid: QuantizationScheme.Grid, amax: Float) {
    self.grid = grid
    scale = max(amax, .leastNormalMagnitude * 1e6) / (grid == .float ? MiniFloat.e4m3.largest : 127.5)
  }

  public init(grid: QuantizationScheme.Grid, scale: Float) {
    self.grid = grid
    self.scale = scale
  }

  /// - Precondition: at least one head.
  public init(grid: QuantizationScheme.Grid, headScales: [Float]) {
    self.init(grid: grid, scale: headScales.max()!)
    self.headScales = headScales
  }

  fileprivate func keeping(_ heads: [Int]) -> CacheScale {
    headScales.map { scales in CacheScale(grid: grid, headScales: heads.map { scales[$0] }) } ?? self
  }

  /// What a key-value head is stored by.
  package func ofHead(_ head: Int) -> CacheScale { headScales.map { CacheScale(grid: grid, scale: $0[head]) } ?? self }

  /// What comes out of the cache again.
  ///
  /// - Parameter states: [tokens × heads · head size].
  /// - Precondition: where heads have scales, there are as many.
  public func round(_ states: inout Matrix) {
    let scales = headScales ?? [scale]
    // Under one scale everything is one stretch.
    let (stretches, size) = headScales == nil ? (1, states.rows * states.columns) : (states.rows, states.columns / scales.count)
    states.withUnsafeMutableElements { elements in
      for index in 0..<stretches * scales.count {
        let values = UnsafeMutableBufferPointer(start: elements + index * size, count: size)
        let scale = scales[index % scales.count]
        switch grid {
        case .float: MiniFloat.e4m3.round(values, scale: scale)
        case .integer: Kernel.roundToGrid(values, scale: scale, zero: 128, top: 255)
        }
      }
    }
  }
}
