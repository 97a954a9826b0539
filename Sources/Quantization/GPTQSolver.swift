public import Models
public import Passes
public import Tensors

/// The solve of GPTQ for all linears that share an input.
///
/// With the damped Hessian factored as U·D·Uᵀ (U unit upper triangular), column i is quantized from the target
/// tᵢ = wᵢ + Σ_{j<i} (wⱼ − qⱼ)·Uⱼᵢ, which is the reference algorithm without its inverse: the same codes from one factorization, and
/// tr(E·H·Eᵀ) = Σᵢ Dᵢ·‖tᵢ − qᵢ‖² for free.
public struct GPTQSolver: Sendable {
  /// Why no factorization was possible.
  public struct Failure: Error, Equatable, Sendable, CustomStringConvertible {
    public let damping: Double
    public let tokens: Int
    public let features: Int
    public var description: String {
      "the Hessian is not positive definite even with damping \(damping) (\(tokens) calibration tokens for \(features) inputs): rounded to nearest"
    }
  }

  /// Position in the order → column.
  package let order: [Int]
  package let factor: SymmetricMatrix.UpperFactor
  /// Mean square of every input, by column: the importance of its errors in the scale search.
  private let importance: [Float]
  private let columnOrder: GPTQ.Order
  /// The damped Hessian in the order of the solve; `nil` unless asked for.
  private let moments: Matrix?
  /// The damping that made the factorization possible.
  public let damping: Double
  /// Inputs that no calibration token activates.
  public let deadInputs: Int

  /// Orders, damps and factors a Hessian; the damping rises tenfold up to three times.
  ///
  /// - Parameter refining: whether codes are to be refined, for which the Hessian itself is kept.
  public static func prepare(
    _ hessian: Hessian, groupSize: Int, order: GPTQ.Order, damping: Double, refining: Bool = false
  ) -> Result<GPTQSolver, Failure> {
    let matrix = hessian.matrix
    let diagonal = matrix.diagonal
    let live = diagonal.filter { $0 > 0 }
    let mean = live.isEmpty ? 1 : live.reduce(0, +) / Double(live.count)
    let columns = Self.order(diagonal, groupSize: groupSize, order: order)
    var arranged = matrix.permuted(columns)
    // An input that never fires explains nothing and is explained by nothing.
    for row in 0..<matrix.size where diagonal[columns[row]] <= 0 { arranged[row, row] = mean }
    var damping = damping
    for attempt in 0...3 {
      if attempt > 0 { damping = max(damping, 0.001) * 10 }
      if let factor = arranged.upperFactor(shift: damping * mean) {
        return .success(
          GPTQSolver(
            order: columns, factor: factor, importance: diagonal.map { Float(max($0, 0) / mean + 1e-6) }, columnOrder: order,
            moments: refining ? arranged.full(shift: damping * mean) : nil, damping: damping, deadInputs: diagonal.count - live.count))
      }
    }
    return .failure(Failure(damping: damping, tokens: hessian.tokens, features: matrix.size))
  }

  /// The damped Hessian in the order of the columns.
  ///
  /// - Precondition: it was kept.
  var dampedMoments: Matrix {
    guard let moments else { preconditionFailure("the Hessian was not kept") }
    let size = order.count
    var natural = Matrix(rows: size, columns: size)
    natural.withUnsafeMutableElements { natural in
      moments.withUnsafeElements { moments in
        for (row, to) in order.enumerated() {
          for (column, place) in order.enumerated() { natural[to * size + place] = moments[row * size + column] }
        }
      }
    }
    return natural
  }

  private static func order(_ diagonal: [Double], groupSize: Int, order: GPTQ.Order) -> [Int] {
    let all = Array(diagonal.indices)
    // Ties keep their order, so that the result does not depend on the sort.
    func byActivity(_ columns: [Int]) -> [Int] { columns.sorted { (diagonal[$1], $0) < (diagonal[$0], $1) } }
    switch order {
    case .natural: return all
    case .activation: return byActivity(all)
    case .group:
      let groups = stride(from: 0, to: all.count, by: groupSize).map { byActivity(Array($0..<min($0 + groupSize, all.count))) }
      return groups.sorted { (diagonal[$1[0]], $0[0]) < (diagonal[$0[0]], $1[0]) }.flatMap { $0 }
    }
  }

  /// - Parameter weight: [outputs × inputs].
  /// - Returns: the quantized weight and its loss tr(E·H·Eᵀ) / tr(W·H·Wᵀ), with the damped H.
  public func quantize(
    _ weight: Matrix, scheme: QuantizationScheme, scales choice: ScaleChoice = .clip, staticGroups: Bool = false, refit: Bool = false,
    refine: Int = 0, blockSize: Int = 128, globalScale: Float? = nil
  ) -> (quantized: QuantizedMatrix, relativeLoss: Double) {
    quantize(
      weight, scheme: scheme, scales: choice, staticGroups: staticGroups, refit: refit, refine: refine, blockSize: blockSize,
      globalScale: globalScale, zeros: nil)
  }

  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - zeros: which weights become zero whatever they are.
  ///   - choice: how further ones are chosen in the sweep; their groups must lie together in the order of the columns.
  /// - Returns: the quantized weight and its loss tr(E·H·Eᵀ) / tr(W·H·Wᵀ), with the damped H.
  package func quantize(
    _ weight: Matrix, scheme: QuantizationScheme, scales choice: ScaleChoice = .clip, staticGroups: Bool = false, refit: Bool = false,
    refine: Int = 0, blockSize: Int = 128, globalScale: Float? = nil, zeros zeroMask: SparsityMask?, choosing zeroChoice: ZeroChoice? = nil
  ) -> (quantized: QuantizedMatrix, relativeLoss: Double) {
    precondition(weight.columns == order.count, "the weight has \(weight.columns) inputs, the Hessian \(order.count)")
    let size = scheme.groupSize(columns: weight.columns)
    precondition(weight.columns % size == 0, "tiles that are cut off have no scale of their own in a solve")
    precondition(refine == 0 || (moments != nil && scheme.grid == .integer && scheme.zeroPoint != .real), "nothing to refine with")
    precondition(scheme.zeroPoint != .real || (zeroMask == nil && zeroChoice == nil), "a grid with real zero points has no zero")
    let groups = weight.columns / size
    let search = ScaleSearch(
      scheme: scheme, choice: choice,
      globalScale: scheme.hasGlobalScale ? globalScale ?? ScaleSearch.globalScale(amax: weight.amax) : nil)
    // Rows of one strip cannot choose for the rows of another.
    let shared = scheme.groupHeight(rows: weight.rows) > 1
    let preset = shared ? RoundToNearest.quantize(weight, scheme: scheme, scales: choice, importance: importance) : nil
    let fixed = shared || staticGroups || columnOrder == .activation
    var codes = [UInt8](repeating: 0, count: weight.rows * weight.columns)
    var scales = [Float](repeating: 0, count: weight.rows * groups)
    var zeros = scales
    let height = 64
    let strips = (weight.rows + height - 1) / height
    var losses = [(error: Double, norm: Double)](repeating: (0, 0), count: strips)
    codes.withUnsafeMutableBufferPointer { codes in
      scales.withUnsafeMutableBufferPointer { scales in
        zeros.withUnsafeMutableBufferPointer { zeros in
          losses.withUnsafeMutableBufferPointer { losses in
            nonisolated(unsafe) let (codes, scales, zeros, losses) = (codes, scales, zeros, losses)
            Parallel.forEach(strips) { index in
              let rows = index * height..<min((index + 1) * height, weight.rows)
              var strip = GPTQStrip(
                weight, rows: rows, order: order, factor: factor, importance: importance,
                search: search, groupSize: size, zeros: zeroMask, choosing: zeroChoice)
              strip.solve(fixedGroups: fixed, preset: preset, blockSize: blockSize)
              // Powers of two have no neighbours close enough to move to.
              let refits = refit && !shared && scheme.scaleType != .float8E8M0
              if refits { strip.refitScales() }
              if let moments {
                for _ in 0..<refine {
                  strip.descend(moments, blockSize: blockSize)
                  if refits { strip.refitScales() }
                }
              }
              losses[index] = strip.loss()
              strip.store(codes: codes, scales: scales, zeros: zeros)
            }
          }
        }
      }
    }
    let quantized: QuantizedMatrix
    if let preset {
      quantized = QuantizedMatrix(
        scheme: scheme, rows: weight.rows, columns: weight.columns, codes: codes, scales: preset.scales, zeroPoints: preset.zeroPoints)
    } else {
      quantized = search.matrix(rows: weight.rows, columns: weight.columns, codes: codes, scales: scales, zeros: zeros)
    }
    let norm = losses.reduce(0) { $0 + $1.norm }
    return (quantized, norm > 0 ? losses.reduce(0) { $0 + $1.error } / norm : 0)
  }

  /// tr(E·H·Eᵀ) / tr(W·H·Wᵀ) of a weight quantized by whatever means, with the damped H.
  package func relativeLoss(of quantized: QuantizedMatrix, against weight: Matrix) -> Double {
    let columns = order.count
    func arranged(_ matrix: Matrix) -> Matrix {
      Matrix(
        rows: matrix.rows, columns: columns,
        elements: (0..<matrix.rows).flatMap { row in order.map { matrix.elements[row * columns + $0] } })
    }
    func loss(_ matrix: Matrix) -> Double {
      // (W·U): the rows in the basis where H is diagonal.
      let transformed = arranged(matrix).times(transposed: factor.unitUpper.transposed())
      return (0..<matrix.rows).reduce(0) { sum, row in
        sum + (0..<columns).reduce(0.0) { $0 + factor.pivots[$1] * Double(transformed[row, $1]) * Double(transformed[row, $1]) }
      }
    }
    var error = quantized.dense()
    error.subtract(weight)
    let norm = loss(weight)
    return norm > 0 ? loss(error) / norm : 0
  }
}
