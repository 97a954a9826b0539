extension SymmetricMatrix {
  /// Eigenvectors of the largest eigenvalues, largest first, as rows [count × size].
  ///
  /// - Returns: `nil` where LAPACK's iteration did not converge.
  public func leadingEigenvectors(_ count: Int) -> Matrix? { eigenvectors()?.vectors(count) }

  /// All eigenvalues, ascending, with their eigenvectors.
  public func eigenvectors() -> Eigenvectors? {
    var full = [Double](repeating: 0, count: size * size)
    for row in 0..<size { for column in 0..<size { full[row * size + column] = self[row, column] } }
    return BLAS.symmetricEigenvectors(&full, size: size).map { Eigenvectors(values: $0, elements: full) }
  }

  public struct Eigenvectors: Sendable {
    /// Ascending.
    public let values: [Double]
    let elements: [Double]

    /// The last `count` of them, largest eigenvalue first, as rows.
    func vectors(_ count: Int) -> Matrix {
      let size = values.count
      return Matrix(
        rows: count, columns: size,
        elements: (0..<count).flatMap { index in elements[(size - 1 - index) * size..<(size - index) * size].map { Float($0) } })
    }
  }
}
