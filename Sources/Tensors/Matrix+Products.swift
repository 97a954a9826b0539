extension Matrix {
  /// `self · weightᵀ`, the product a linear layer computes: [tokens × inputs] by [outputs × inputs] gives [tokens × outputs].
  ///
  /// Runs on the calling thread; callers have many sequences to spread over the threads.
  public func times(transposed weight: Matrix) -> Matrix {
    precondition(columns == weight.columns, "inner dimensions differ")
    return Matrix(rows: rows, columns: weight.rows) { out in
      guard let base = out.baseAddress else { return }
      withUnsafeElements { a in
        weight.withUnsafeElements { b in
          BLAS.product(
            a, stride: columns, b, stride: columns, rightTransposed: true, rows: rows, columns: weight.rows, inner: columns, into: base,
            stride: weight.rows)
        }
      }
    }
  }
}
