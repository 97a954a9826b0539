public import Models
public import Passes
public import Tensors

/// Rounds every weight to the nearest point of its group's grid.
///
/// Data-free by default; with `importance: activations` the scale search weighs each input channel by its mean square in the calibration
/// data.
public struct RoundToNearest: IntegerQuantizer {
  public static let name = "rtn"
  public static let summary = "round to nearest, with a scale search"

  public enum Importance: String, Sendable, Codable { case none, activations }

  public var bits = 4
  public var groupSize: GroupSize = 128
  public var symmetric = true
  public var scales = ScaleChoice.clip
  public var importance = Importance.none
  public var layers = LayerSelector()
  public var overrides: [QuantizationOverride] = []

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case bits, groupSize = "group_size", symmetric, scales, importance, layers, overrides
  }

  public var usesCalibration: Bool { importance == .activations }

  public func validate() throws(InvalidOption) { try validateGrid() }

  public func run(on block: inout Block, in context: PassContext) throws {
    for group in block.groups(layers) {
      let weighted = importance == .activations && block.kind != .embedding
      let importance = weighted ? try context.statistic(InputNorm.self, of: group, in: block).squaredValues.map { Float($0) } : nil
      for name in group.linears {
        let linear = block[name]
        var scheme = scheme(of: block.fullName(of: name), isEnd: block.description == nil)
        scheme.scaleType = linear.storageType
        try block.check(scheme, fits: name)
        let weight = linear.weight.dense()
        let quantized = Self.quantize(weight, scheme: scheme, scales: scales, importance: importance)
        block[name].weight = quantized
        context.record(
          name, in: block,
          [
            "bits_per_weight": quantized.bitsPerWeight,
            "relative_weight_error": Self.relativeError(of: quantized, against: weight),
          ], scheme: scheme.label)
      }
    }
  }

  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - importance: a factor per input for its squared error in the scale search.
  public static func quantize(
    _ weight: Matrix, scheme: QuantizationScheme, scales choice: ScaleChoice = .clip, importance: [Float]? = nil
  ) -> QuantizedMatrix {
    let size = scheme.groupSize(columns: weight.columns)
    let groups = weight.columns / size
    let search = ScaleSearch(scheme: scheme, choice: choice)
    var codes = [UInt8](repeating: 0, count: weight.rows * weight.columns)
    var scales = [Float](repeating: 0, count: weight.rows * groups)
    var zeros = scales
    codes.withUnsafeMutableBufferPointer { codes in
      scales.withUnsafeMutableBufferPointer { scales in
        zeros.withUnsafeMutableBufferPointer { zeros in
          nonisolated(unsafe) let (codes, scales, zeros) = (codes, scales, zeros)
          // Strips of about 2¹⁶ weights: worth a thread's attention, small enough to balance.
          let strip = max(1, (1 << 16) / weight.columns)
          Parallel.forEach((weight.rows + strip - 1) / strip) { index in
            weight.withUnsafeElements { elements in
              for row in index * strip..<min((index + 1) * strip, weight.rows) {
                for group in 0..<groups {
                  let start = row * weight.columns + group * size
                  let part = UnsafeBufferPointer(start: elements + start, count: size)
                  let parameters =
                    importance?.withUnsafeBufferPointer { search.parameters(part, importance: $0.baseAddress! + group * size) }
                    ?? search.parameters(part, importance: nil)
                  Kernel.quantize(
                    part, scale: parameters.scale, zero: parameters.zero, top: scheme.top, into: codes.baseAddress! + start)
                  scales[row * groups + group] = parameters.scale
                  zeros[row * groups + group] = parameters.zero
                }
              }
            }
          }
        }
      }
    }
    return QuantizedMatrix(
      scheme: scheme, rows: weight.rows, columns: weight.columns, codes: codes,
      scales: Matrix(rows: weight.rows, columns: groups, elements: scales),
      zeroPoints: scheme.symmetric ? nil : Matrix(rows: weight.rows, columns: groups, elements: zeros))
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
  /// One row of `dense()`.
  func dense(row: Int) -> [Float] {
    [Float](unsafeUninitializedCapacity: columns) { out, count in
      codes.withUnsafeBufferPointer { codes in
        for group in 0..<scales.columns {
          let start = row * columns + group * groupSize
          Kernel.dequantize(
            UnsafeBufferPointer(rebasing: codes[start..<start + groupSize]), scale: scales[row, group],
            zero: zeroPoints?[row, group] ?? scheme.middle, into: out.baseAddress! + group * groupSize)
        }
      }
      count = columns
    }
  }

  var bitsPerWeight: Double { Double(storedBits) / Double(rows * columns) }
}

extension Block {
  /// - Throws: `InvalidOption` where the groups do not divide the columns.
  func check(_ scheme: QuantizationScheme, fits name: LinearName) throws(InvalidOption) {
    let columns = self[name].weight.columns
    let size = scheme.groupSize(columns: columns)
    guard columns % size == 0 else {
      throw InvalidOption("group_size", "\(size) does not divide the \(columns) columns of \(fullName(of: name))")
    }
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
