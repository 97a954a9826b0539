public import Models
public import Passes
public import Tensors

/// Rounds every weight to the nearest point of its group's grid.
///
/// Data-free by default; with `importance: activations` the scale search weighs each input channel by its mean square in the calibration
/// data.
public struct RoundToNearest: WeightQuantizer {
  public static let name = "rtn"
  public static let summary = "round to nearest, with a scale search"

  public enum Importance: String, Sendable, Codable, CaseIterable { case none, activations }

  public var numbers = NumberFormat.int
  public var bits: Int?
  public var groupSize: GroupSize?
  public var symmetric = true
  public var zeroPoint = ZeroPointKind.integer
  public var scales = ScaleChoice.clip
  public var importance = Importance.none
  public var activations = InputFormat.none
  public var layers = LayerSelector()
  public var overrides: [QuantizationOverride] = []

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case numbers, bits, groupSize = "group_size", symmetric, zeroPoint = "zero_point", scales, importance, activations, layers, overrides
  }

  package var weighsInputs: Bool { importance == .activations }
  public var acceptsFactors: Bool { true }
  public var usesCalibration: Bool { importance == .activations || calibratesInputs }

  public func validate() throws(InvalidOption) { try validateGrid() }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    for group in part.groups(layers) {
      let weighted = importance == .activations && !(part is Embedding)
      let norms = weighted ? try context.statistic(InputNorm.self, of: group, in: part) : nil
      let isUnreached = norms?.tokens == 0
      let importance = isUnreached ? nil : norms?.squaredValues.map { Float($0) }
      let global = globalScale(of: group, in: part)
      for name in group.linears {
        if isUnreached { try context.recordFallback(name, in: part, "\(Unreached.reason): its scales are searched unweighted") }
        if let factors = part[name].weight as? FactoredWeight {
          try quantize(factors, named: name, of: &part, importance: importance, context)
          continue
        }
        let scheme = try storedScheme(of: name, in: part)
        let (quantized, figures) = Self.quantize(
          WeightRows(part[name].weight), ScaleSearch(scheme: scheme, choice: scales, globalScale: global), importance, measuring: true)
        part[name].weight = quantized
        context.record(
          name, in: part,
          [
            "bits_per_weight": quantized.bitsPerWeight, "relative_weight_error": figures.relativeError, "clip": figures.clip,
          ].merging(sparsityMetrics(figures.zeros)) { $1 }, scheme: scheme.description)
        try recordLostZeros(name, in: part, figures.zeros, context)
      }
      try quantizeInputs(of: group, in: &part, context)
    }
  }

  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - importance: a factor per input for its squared error in the scale search.
  ///   - globalScale: what E4M3 scales are divided by; by default the weight's own.
  public static func quantize(
    _ weight: Matrix, scheme: QuantizationScheme, scales choice: ScaleChoice = .clip, importance: [Float]? = nil,
    globalScale: Float? = nil
  ) -> QuantizedMatrix {
    let global = scheme.hasGlobalScale ? globalScale ?? ScaleSearch.globalScale(amax: weight.amax) : nil
    return quantize(WeightRows(weight), ScaleSearch(scheme: scheme, choice: choice, globalScale: global), importance).quantized
  }

  /// Quantizes a weight strip by strip, and measures what that did while each strip is in the cache: where nothing is solved, reading the
  /// weight again is what costs.
  ///
  /// - Parameter measuring: whether anybody asks for the figures; they are empty otherwise.
  static func quantize(
    _ weight: WeightRows, _ search: ScaleSearch, _ importance: [Float]?, measuring: Bool = false
  ) -> (quantized: QuantizedMatrix, figures: RoundingFigures) {
    let (rows, columns) = (weight.rows, weight.columns)
    let height = max(1, search.scheme.groupHeight(rows: rows))
    // Strips of about 2¹⁶ weights: worth a thread's attention, small enough to balance.
    let length = height * max(1, (1 << 16) / max(1, columns * height))
    var strips: [RoundedStrip] = []
    let codes = [UInt8](filling: rows * columns) { codes in
      // Strips do not overlap.
      nonisolated(unsafe) let codes = codes
      strips = Parallel.map((rows + length - 1) / length) { index in
        let range = index * length..<min((index + 1) * length, rows)
        var strip = RoundedStrip(search: search, columns: columns, importance: importance, isMeasured: measuring)
        weight.withUnsafeRows(range) { first in
          for start in stride(from: range.lowerBound, to: range.upperBound, by: height) {
            strip.round(
              first + (start - range.lowerBound) * columns, rows: min(height, range.upperBound - start),
              into: codes.baseAddress! + start * columns)
          }
        }
        return strip
      }
    }
    let parameters = strips.flatMap(\.parameters)
    return (
      search.matrix(rows: rows, columns: columns, codes: codes, scales: parameters.map(\.scale), zeros: parameters.map(\.zero)),
      RoundingFigures(strips.map(\.sums), weights: rows * columns, groups: parameters.count)
    )
  }
}

extension QuantizedMatrix {
  var bitsPerWeight: Double { Double(storedBits) / Double(max(1, rows * columns)) }
}

extension Matrix {
  var amax: Float {
    let range = elements.withUnsafeBufferPointer { Kernel.range($0) }
    return max(-range.lowerBound, range.upperBound)
  }
}

extension Pass where Self == RoundToNearest {
  /// Round to nearest, for use in code: `Pipeline([.rtn(bits: 8)])`.
  public static func rtn(bits: Int = 4, groupSize: GroupSize = 128, symmetric: Bool = true) -> RoundToNearest {
    var pass = RoundToNearest()
    pass.bits = bits
    pass.groupSize = groupSize
    pass.symmetric = symmetric
    return pass
  }
}
