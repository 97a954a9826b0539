extension SymmetricMatrix {
  /// right · (self + shift · I)⁻¹, in double.
  ///
  /// - Parameter right: [rows × size], row-major.
  /// - Returns: `nil` where the shifted matrix is not positive definite.
  package func solve(_ right: [Double], rows: Int, shift: Double = 0) -> [Double]? {
    precondition(right.count == rows * size, "the right side does not fill its shape")
    let size = size
    var work = lower
    for index in 0..<size { work[index * (size + 1)] += shift }
    guard Self.factor(&work, size: size) else { return nil }
    var solution = right
    let strip = 32
    solution.withUnsafeMutableBufferPointer { solution in
      work.withUnsafeBufferPointer { factor in
        guard let first = solution.baseAddress, let lower = factor.baseAddress else { return }
        nonisolated(unsafe) let (out, factor) = (first, lower)
        Parallel.forEach((rows + strip - 1) / strip) { index in
          let first = index * strip
          BLAS.solveCholesky(factor, size: size, out + first * size, rows: min(strip, rows - first))
        }
      }
    }
    return solution
  }

  /// The rows and columns of some indices, in their order.
  package func selecting(_ indices: [Int]) -> SymmetricMatrix {
    var result = SymmetricMatrix(size: indices.count)
    for (row, from) in indices.enumerated() {
      for column in 0...row { result.lower[row * indices.count + column] = self[from, indices[column]] }
    }
    return result
  }

  /// Rows and columns of the full matrix, [rows × columns] in double.
  package func elements(rows: [Int], columns: [Int]) -> [Double] { rows.flatMap { row in columns.map { self[row, $0] } } }
}
