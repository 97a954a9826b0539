public import Models
public import Passes
public import Tensors

/// Half-quadratic quantization: zero points that minimise a sparsity-promoting norm of the error, without data (Badri and Shaji 2023).
///
/// min over z of Σ φ(w − s·(Q(w) − z)) with φ an ℓp norm, p < 1, which forgives outliers: split into a generalised soft threshold of the error
/// and a mean. Deviations: the zero point with the smallest error of all steps is kept, not the last; with integer zero points the result is
/// rounded and the codes are found anew.
public struct HQQ: WeightQuantizer {
  public static let name = "hqq"
  public static let summary = "half-quadratic quantization: zero points fitted without data"

  public var numbers = NumberFormat.int
  public var bits: Int?
  public var groupSize: GroupSize?
  public var zeroPoint = ZeroPointKind.real
  /// The norm's exponent.
  public var norm = 0.7
  /// Weight of the quadratic coupling, and its growth per step.
  public var beta = 10.0
  public var growth = 1.01
  public var iterations = 20
  public var activations = InputFormat.none
  public var layers = LayerSelector()
  public var overrides: [QuantizationOverride] = []

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case numbers, bits, groupSize = "group_size", zeroPoint = "zero_point", norm, beta, growth, iterations, activations, layers, overrides
  }

  package var symmetric: Bool { false }

  public var usesCalibration: Bool { calibratesInputs }

  public func validate() throws(InvalidOption) {
    guard numbers == .int, overrides.allSatisfy({ ($0.numbers ?? .int) == .int }) else {
      throw InvalidOption("numbers", "only integers have the zero points that this method fits")
    }
    try validateGrid()
    guard norm > 0, norm < 1 else { throw InvalidOption("norm", "\(norm): between 0 and 1") }
    guard beta > 0 else { throw InvalidOption("beta", "\(beta): a positive number") }
    guard growth >= 1 else { throw InvalidOption("growth", "\(growth): 1 or more") }
    guard iterations > 0 else { throw InvalidOption("iterations", "\(iterations): a positive number") }
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    for group in part.groups(layers) {
      for name in group.linears {
        let scheme = try storedScheme(of: name, in: part)
        guard scheme.groupHeight(rows: 2) == 1 else {
          throw InvalidOption("group_size", "zero points are fitted to groups of a row; give a number of columns or channel")
        }
        let weight = part[name].weight.dense()
        let quantized = quantize(weight, scheme: scheme)
        part[name].weight = quantized
        context.record(
          name, in: part,
          [
            "bits_per_weight": quantized.bitsPerWeight,
            "relative_weight_error": RoundingFigures(of: quantized, against: weight).relativeError,
          ], scheme: scheme.description)
      }
      try quantizeInputs(of: group, in: &part, context)
    }
  }

  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - scheme: an asymmetric integer scheme of groups inside rows.
  public func quantize(_ weight: Matrix, scheme: QuantizationScheme) -> QuantizedMatrix {
    let search = ScaleSearch(scheme: scheme, choice: .minmax)
    let size = scheme.groupSize(columns: weight.columns)
    let groups = weight.columns / size
    var codes = [UInt8](repeating: 0, count: weight.rows * weight.columns)
    var scales = [Float](repeating: 0, count: weight.rows * groups)
    var zeros = scales
    codes.withUnsafeMutableBufferPointer { codes in
      scales.withUnsafeMutableBufferPointer { scales in
        zeros.withUnsafeMutableBufferPointer { zeros in
          nonisolated(unsafe) let (codes, scales, zeros) = (codes, scales, zeros)
          Parallel.forEach(weight.rows) { row in
            weight.withUnsafeElements { elements in
              for group in 0..<groups {
                let start = row * weight.columns + group * size
                let part = UnsafeBufferPointer(start: elements + start, count: size)
                let parameters = parameters(of: part, search)
                search.encode(part, parameters, into: codes.baseAddress! + start)
                scales[row * groups + group] = parameters.scale
                zeros[row * groups + group] = parameters.zero
              }
            }
          }
        }
      }
    }
    return search.matrix(rows: weight.rows, columns: weight.columns, codes: codes, scales: scales, zeros: zeros)
  }

  private func parameters(of weights: UnsafeBufferPointer<Float>, _ search: ScaleSearch) -> GroupParameters {
    let start = search.parameters(weights, importance: nil)
    var (zero, beta) = (start.zero, Float(beta))
    var best = (zero: zero, distance: Float.infinity)
    for _ in 0..<iterations {
      let step = Kernel.hqqStep(
        weights, inverse: 1 / start.scale, zero: zero, top: search.scheme.top, power: Float(norm), beta: beta)
      // The distance belongs to the zero point the step started from.
      guard step.distance < best.distance else { break }
      best = (zero, step.distance)
      zero = step.zero
      beta *= Float(growth)
    }
    switch search.scheme.zeroPoint {
    case .real: return search.biased(scale: start.scale, bias: -best.zero * start.scale)
    default:
      return GroupParameters(scale: start.scale, zero: min(max(best.zero.rounded(.toNearestOrEven), 0), search.scheme.top))
    }
  }
}
