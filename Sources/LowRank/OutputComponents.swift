/// Principal components of what a linear makes of its inputs: the best approximations of its weight of every rank.
///
/// min over rank-k M of tr((W − M)·G·(W − M)ᵀ), with G the inputs' second moment, is reached by M = E·(Eᵀ·W), where the columns of E are the
/// eigenvectors of W·G·Wᵀ of the largest eigenvalues, and is the sum of the eigenvalues left out. It is the solution of SVD-LLM (Wang et al.
/// 2024), whose factors come from a Cholesky factor of G and its inverse; here neither a root nor an inverse of G is needed, and G may be
/// singular. Where the weight has more outputs than inputs, the same spectrum is taken from the smaller side through a root of G. With G = I
/// it is the plain singular value decomposition, with a diagonal G that of ASVD (Yuan et al. 2023).
struct OutputComponents: Sendable {
  /// Squared singular values of the whitened weight, largest first.
  let energies: [Double]
  /// Directions in the space of the outputs, as rows [components × outputs], orthonormal wherever their energy is above rounding.
  private let directions: DoubleMatrix

  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - moment: of the inputs, positive semidefinite.
  /// - Returns: `nil` where LAPACK's iteration did not converge.
  init?(of weight: DoubleMatrix, moment: DoubleMatrix) {
    if weight.rows <= weight.columns {
      guard let (values, vectors) = weight.times(moment).times(weight.transposed()).eigenvectors() else { return nil }
      (energies, directions) = (values, vectors)
      return
    }
    guard let (variances, axes) = moment.eigenvectors() else { return nil }
    // Rᵀ: the rows √λ·v of a root G = R·Rᵀ.
    var root = axes
    for row in 0..<root.rows { for column in 0..<root.columns { root[row, column] *= variances[row].squareRoot() } }
    let whitened = root.times(weight.transposed())
    guard let (values, vectors) = whitened.times(whitened.transposed()).eigenvectors() else { return nil }
    var outputs = vectors.times(whitened)
    for row in 0..<outputs.rows {
      let norm = (0..<outputs.columns).reduce(0.0) { $0 + outputs[row, $1] * outputs[row, $1] }.squareRoot()
      guard norm > 0 else { continue }
      for column in 0..<outputs.columns { outputs[row, column] /= norm }
    }
    (energies, directions) = (values, outputs)
  }

  /// tr(W·G·Wᵀ).
  var total: Double { energies.reduce(0, +) }

  /// What the best approximation of a rank loses.
  func tail(beyond rank: Int) -> Double { energies.dropFirst(rank).reduce(0, +) }

  /// The factors of the best approximation: B with orthonormal columns [outputs × rank], and A = Bᵀ·W [rank × inputs].
  func factors(of weight: DoubleMatrix, rank: Int) -> (output: DoubleMatrix, input: DoubleMatrix) {
    let kept = directions.rows(0..<rank)
    return (kept.transposed(), kept.times(weight))
  }
}
