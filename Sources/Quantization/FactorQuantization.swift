import Models
import Passes
import Tensors

/// Quantizing a weight that is two low-rank factors, y = B·(A·x).
///
/// A is a linear over the inputs. B reads latents z = A·x, whose second moment follows from the inputs' as A·H·Aᵀ, so that no further
/// forward pass is needed; what rounding A has changed in them is drift, which B makes up for in closed form. Where B has orthonormal columns,
/// as `low_rank` leaves it, A's error is the output's.
extension WeightQuantizer {
  /// The schemes of A and B.
  ///
  /// - Throws: `InvalidOption` where groups do not divide their columns, or where latents would have to be quantized.
  func factorSchemes(
    of factors: FactoredWeight, named name: LinearName, in part: any ModelPart
  ) throws(InvalidOption) -> (input: QuantizationScheme, output: QuantizationScheme) {
    let full = part.fullName(of: name)
    var scheme = scheme(of: full, isEnd: false, columns: factors.columns, factors.rank)
    if scheme.scaleType == .bfloat16 { scheme.scaleType = part[name].scaleType }
    guard inputFormat(of: full, isEnd: false) == .none else {
      throw InvalidOption("activations", "\(full) is two low-rank factors, and quantized latents between them are not simulated; none")
    }
    guard !scheme.hasGlobalScale else {
      throw InvalidOption(
        "numbers", "\(full) is two low-rank factors, which have no global scale in common; choose int, fp8 or an mx format")
    }
    switch scheme.granularity {
    case .tensor, .block:
      throw InvalidOption("group_size", "\(full) is two low-rank factors; choose a number, or channel")
    case .channel, .group: break
    }
    for (columns, what) in [(factors.columns, "columns"), (factors.rank, "rank")] where !scheme.fits(columns: columns) {
      throw InvalidOption(
        "group_size",
        "\(scheme.groupSize(columns: columns)) does not divide the \(what) of \(full), \(columns); choose another size, or a rank_multiple of low_rank that it divides"
      )
    }
    return (scheme, scheme)
  }

  func plan(factorsOf linear: PlannedLinear, rank: Int, _ scheme: QuantizationScheme) throws(InvalidOption) -> PlannedLinear {
    guard scheme.fits(columns: linear.columns), scheme.fits(columns: rank) else {
      throw InvalidOption(
        "group_size",
        "\(scheme.groupSize(columns: rank)) does not divide the \(linear.columns) columns and the rank \(rank) of \(linear.name)'s factors; choose another size, or a rank_multiple of low_rank that it divides"
      )
    }
    var planned = linear
    let denseInput = rank * linear.columns * linear.storageType.bitCount
    // The factor that another linear stores is not counted again.
    let storesInput = linear.storedBits >= denseInput + rank * linear.rows * linear.storageType.bitCount
    planned.storedBits =
      scheme.storedBits(rows: linear.rows, columns: rank) + (storesInput ? scheme.storedBits(rows: rank, columns: linear.columns) : 0)
    planned.scheme = "\(scheme) of \(linear.scheme)"
    planned.factorNumbers = scheme
    return planned
  }
}

extension GPTQ {
  /// - Parameter solver: of the Hessian of A's inputs.
  func quantize(
    _ factors: FactoredWeight, named name: LinearName, of part: inout any ModelPart, _ solver: GPTQSolver, _ hessian: Hessian,
    _ context: PassContext
  ) throws {
    let schemes = try factorSchemes(of: factors, named: name, in: part)
    let (a, b) = (factors.input.dense(), factors.output.dense())
    var quantized = factors
    // The linear that stores a shared factor comes before those that only read it.
    if let owner = factors.sharesInputOf, let done = part[owner].weight as? FactoredWeight, done.input is QuantizedMatrix {
      quantized.input = done.input
    } else {
      quantized.input =
        solver.quantize(
          a, scheme: schemes.input, scales: scales, staticGroups: staticGroups, refit: refit, refine: refine, blockSize: blockSize
        ).quantized
    }
    let rounded = quantized.input.dense()
    let (height, rank) = (factors.rows / factors.groups, factors.rank)
    var parts: [QuantizedMatrix] = []
    for group in 0..<factors.groups {
      let latents = group * rank..<(group + 1) * rank
      let own = b.rows(group * height..<(group + 1) * height)
      let moments = hessian.projected(by: rounded.rows(latents), from: a.rows(latents))
      switch GPTQSolver.prepare(
        Hessian(moments.own, tokens: hessian.tokens), groupSize: schemes.output.groupSize(columns: rank), order: order, damping: damping,
        refining: refine > 0)
      {
      case .success(let latentSolver):
        let target = latentSolver.corrected(own, cross: moments.cross, by: 1)
        parts.append(
          latentSolver.quantize(
            target, scheme: schemes.output, scales: scales, staticGroups: staticGroups, refit: refit, refine: refine,
            blockSize: blockSize
          ).quantized)
      case .failure(let failure):
        parts.append(RoundToNearest.quantize(own, scheme: schemes.output, scales: scales))
        try context.recordFallback(name, in: part, "output factor: \(failure)")
      }
    }
    quantized.output = parts.count == 1 ? parts[0] : QuantizedMatrix(stacking: parts)
    part[name].weight = quantized
    let dense = factors.dense()
    var error = dense
    error.subtract(quantized.dense())
    let size = hessian.loss(of: dense)
    context.record(
      name, in: part,
      [
        "bits_per_weight": Double(quantized.storedBits) / Double(factors.rows * factors.columns),
        "relative_layer_loss": size > 0 ? hessian.loss(of: error) / size : 0, "damping": solver.damping,
        "calibration_tokens": Double(hessian.tokens),
      ], scheme: "\(schemes.input) of rank \(rank)")
  }
}

extension RoundToNearest {
  func quantize(
    _ factors: FactoredWeight, named name: LinearName, of part: inout any ModelPart, importance: [Float]?, _ context: PassContext
  ) throws {
    let schemes = try factorSchemes(of: factors, named: name, in: part)
    var quantized = factors
    quantized.input = Self.quantize(factors.input.dense(), scheme: schemes.input, scales: scales, importance: importance)
    quantized.output = Self.quantize(factors.output.dense(), scheme: schemes.output, scales: scales)
    part[name].weight = quantized
    let dense = factors.dense()
    var error = dense
    error.subtract(quantized.dense())
    let size = dense.elements.reduce(0.0) { $0 + Double($1) * Double($1) }
    context.record(
      name, in: part,
      [
        "bits_per_weight": Double(quantized.storedBits) / Double(factors.rows * factors.columns),
        "relative_weight_error": size > 0 ? error.elements.reduce(0.0) { $0 + Double($1) * Double($1) } / size : 0,
      ], scheme: "\(schemes.input) of rank \(factors.rank)")
  }
}

extension Hessian {
  /// The second moment of z = A·x, and Σ (z₀ − z)·zᵀ with z₀ = A₀·x, row-major.
  fileprivate func projected(by factor: Matrix, from original: Matrix) -> (own: SymmetricMatrix, cross: [Double]) {
    let (size, rank) = (matrix.size, factor.rows)
    let dense = (0..<size * size).map { matrix[$0 / size, $0 % size] }
    let (own, before) = (factor.elements.map { Double($0) }, original.elements.map { Double($0) })
    func product(_ a: [Double], rows: Int, _ b: [Double], columns: Int) -> [Double] {
      var out = [Double](repeating: 0, count: rows * columns)
      out.withUnsafeMutableBufferPointer { out in
        a.withUnsafeBufferPointer { a in
          b.withUnsafeBufferPointer { b in
            BLAS.product(
              a.baseAddress!, stride: size, b.baseAddress!, stride: columns, rows: rows, columns: columns, inner: size,
              into: out.baseAddress!, stride: columns)
          }
        }
      }
      return out
    }
    let right = (0..<size * rank).map { own[$0 % rank * size + $0 / rank] }
    let moment = product(product(own, rows: rank, dense, columns: size), rows: rank, right, columns: rank)
    let mixed = product(product(before, rows: rank, dense, columns: size), rows: rank, right, columns: rank)
    var result = SymmetricMatrix(size: rank)
    for row in 0..<rank { for column in 0...row { result[row, column] = moment[row * rank + column] } }
    return (result, zip(mixed, moment).map { $0 - $1 })
  }
}

extension QuantizedMatrix {
  /// Rows of the same grid, one matrix after the other.
  fileprivate init(stacking parts: [QuantizedMatrix]) {
    self.init(
      scheme: parts[0].scheme, rows: parts.reduce(0) { $0 + $1.rows }, columns: parts[0].columns, codes: parts.flatMap(\.codes),
      scales: Matrix(stacking: parts.map(\.scales)),
      zeroPoints: parts[0].zeroPoints.map { _ in Matrix(stacking: parts.map { $0.zeroPoints! }) })
  }
}
