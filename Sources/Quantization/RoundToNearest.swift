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

  public enum Importance: String, Sendable, Codable { case none, activations }

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

  public func run(on block: inout Block, in context: PassContext) throws {
    for group in block.groups(layers) {
      let weighted = importance == .activations && block.kind != .embedding
      let importance = weighted ? try context.statistic(InputNorm.self, of: group, in: block).squaredValues.map { Float($0) } : nil
      let global = globalScale(of: group, in: block)
      for name in group.linears {
        if let factors = block[name].weight as? FactoredWeight {
          try quantize(factors, named: name, of: &block, importance: importance, context)
          continue
        }
        let scheme = try storedScheme(of: name, in: block)
        let weight = block[name].weight.dense()
        let quantized = Self.quantize(weight, scheme: scheme, scales: scales, importance: importance, globalScale: global)
        var metrics = [
          "bits_per_weight": quantized.bitsPerWeight, "relative_weight_error": Self.relativeError(of: quantized, against: weight),
          "clip": Self.clip(of: quantized, against: weight),
        ]
        let sparsity = sparsity(of: quantized, from: weight)
        if let sparsity { metrics["sparsity"] = sparsity.now }
        block[name].weight = quantized
        context.record(name, in: block, metrics, scheme: scheme.description)
        try recordLostZeros(name, in: block, sparsity, context)
      }
      try quantizeInputs(of: group, in: &block, context)
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
    let search = ScaleSearch(scheme: scheme, choice: choice, globalScale: global)
    let shape = scheme.scaleShape(rows: weight.rows, columns: weight.columns)
    let (size, height) = (scheme.groupSize(columns: weight.columns), max(1, scheme.groupHeight(rows: weight.rows)))
    var codes = [UInt8](repeating: 0, count: weight.rows * weight.columns)
    var scales = [Float](repeating: 0, count: shape.rows * shape.columns)
    var zeros = scales
    codes.withUnsafeMutableBufferPointer { codes in
      scales.withUnsafeMutableBufferPointer { scales in
        zeros.withUnsafeMutableBufferPointer { zeros in
          nonisolated(unsafe) let (codes, scales, zeros) = (codes, scales, zeros)
          // Strips of about 2¹⁶ weights: worth a thread's attention, small enough to balance.
          let strip = max(1, (1 << 16) / (weight.columns * height))
          Parallel.forEach((shape.rows + strip - 1) / strip) { index in
            for scaleRow in index * strip..<min((index + 1) * strip, shape.rows) {
              let rows = scaleRow * height..<min((scaleRow + 1) * height, weight.rows)
              for group in 0..<shape.columns {
                let columns = group * size..<min((group + 1) * size, weight.columns)
                let parameters = search.parameters(of: weight, rows: rows, columns: columns, importance: importance)
                scales[scaleRow * shape.columns + group] = parameters.scale
                zeros[scaleRow * shape.columns + group] = parameters.zero
                for row in rows {
                  weight.withUnsafeElements { elements in
                    let start = row * weight.columns + columns.lowerBound
                    search.encode(
                      UnsafeBufferPointer(start: elements + start, count: columns.count), parameters, into: codes.baseAddress! + start)
                  }
                }
              }
            }
          }
        }
      }
    }
    return search.matrix(rows: weight.rows, columns: weight.columns, codes: codes, scales: scales, zeros: zeros)
  }

  /// How far the ranges were clipped: the mean over the groups of the chosen scale as a share of the one that covers the whole range.
  static func clip(of quantized: QuantizedMatrix, against weight: Matrix) -> Double {
    let search = ScaleSearch(scheme: quantized.scheme, choice: .minmax, globalScale: quantized.globalScale)
    let scheme = quantized.scheme
    let (size, height) = (scheme.groupSize(columns: weight.columns), max(1, scheme.groupHeight(rows: weight.rows)))
    let sums: [Double] = Parallel.map(quantized.scales.rows) { scaleRow in
      let rows = scaleRow * height..<min((scaleRow + 1) * height, weight.rows)
      return (0..<quantized.scales.columns).reduce(0) { sum, group in
        let columns = group * size..<min((group + 1) * size, weight.columns)
        let full = search.parameters(of: weight, rows: rows, columns: columns, importance: nil)
        return sum + Double(abs(quantized.scales[scaleRow, group] / full.scale))
      }
    }
    return sums.reduce(0, +) / Double(max(1, quantized.scales.elements.count))
  }

  /// ‖W − Q‖² / ‖W‖².
  static func relativeError(of quantized: QuantizedMatrix, against weight: Matrix) -> Double {
    let rows: [(error: Double, norm: Double)] = Parallel.map(weight.rows) { row in
      let part = quantized.dense(row: row)
      return weight.withUnsafeElements { elements in
        let row = elements + row * weight.columns
        return (
          error: Kernel.squaredDistance(row, part, count: weight.columns), norm: Kernel.squaredDistance(row, nil, count: weight.columns)
        )
      }
    }
    let norm = rows.reduce(0) { $0 + $1.norm }
    return norm > 0 ? rows.reduce(0) { $0 + $1.error } / norm : 0
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
