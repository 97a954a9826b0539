extension SymmetricMatrix {
  /// A = U · D · Uᵀ with U unit upper triangular and D diagonal: the "reverse" Cholesky factor that GPTQ's feedback needs.
  public struct UpperFactor: Sendable {
    /// U [size × size], row-major; the strict upper triangle is meaningful.
    public let unitUpper: Matrix
    /// D: the variance of each feature that the features after it cannot explain.
    public let pivots: [Double]

    /// Σᵢ Dᵢ·‖(W·U)ᵢ‖², which is tr(W·U·D·Uᵀ·Wᵀ), for the transpose of W [rows × size] as it lies in memory.
    package func energy(ofTransposed weight: [Float], rows: Int) -> Double {
      let size = unitUpper.rows
      precondition(weight.count == size * rows, "shapes differ")
      let width = 256
      var transformed = [Float](repeating: 0, count: width * rows)
      var sum = 0.0
      for start in stride(from: 0, to: size, by: width) {
        let end = min(start + width, size)
        transformed.withUnsafeMutableBufferPointer { out in
          unitUpper.withUnsafeElements { upper in
            weight.withUnsafeBufferPointer { weight in
              // U is upper triangular: rows past the block's end are zero in its columns.
              BLAS.product(
                upper + start, stride: size, leftTransposed: true, weight.baseAddress!, stride: rows, rows: end - start, columns: rows,
                inner: end, into: out.baseAddress!, stride: rows)
            }
          }
          for position in start..<end {
            sum += pivots[position] * Kernel.squaredDistance(out.baseAddress! + (position - start) * rows, nil, count: rows)
          }
        }
      }
      return sum
    }
  }

  /// Factors the matrix with `shift` added to its diagonal, or returns `nil` where that is not positive definite.
  ///
  /// Reversing rows and columns turns the wanted upper factor into an ordinary Cholesky factor, so there is one factorization and no
  /// inverse. Blocked and right-looking; tiles depend on the size alone, so any number of threads gives the same bits.
  public func upperFactor(shift: Double = 0) -> UpperFactor? {
    let size = size
    var work = [Double](repeating: 0, count: size * size)
    for row in 0..<size {
      // Element (size−1−row, size−1−column) of the original, row ≥ column, lies above its diagonal: read it mirrored.
      for column in 0...row { work[row * size + column] = lower[(size - 1 - column) * size + (size - 1 - row)] }
      work[row * size + row] += shift
    }
    guard Self.factor(&work, size: size) else { return nil }
    let pivots = (0..<size).map { work[(size - 1 - $0) * size + (size - 1 - $0)] }
    let unitUpper = Matrix(rows: size, columns: size) { out in
      for row in 0..<size {
        for column in 0..<row { out[row * size + column] = 0 }
        out[row * size + row] = 1
        for column in row + 1..<max(size, row + 1) {
          out[row * size + column] = Float(work[(size - 1 - row) * size + (size - 1 - column)] / pivots[column])
        }
      }
    }
    return UpperFactor(unitUpper: unitUpper, pivots: pivots.map { $0 * $0 })
  }

  static func factor(_ work: inout [Double], size: Int) -> Bool {
    let tile = 192
    return work.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return true }
      for start in stride(from: 0, to: size, by: tile) {
        let width = min(tile, size - start)
        let corner = base + start * size + start
        guard BLAS.choleskyLower(corner, size: width, stride: size) else { return false }
        let below = start + width
        let strips = (size - below + tile - 1) / tile
        nonisolated(unsafe) let (all, block) = (base, corner)
        Parallel.forEach(strips) { strip in
          let row = below + strip * tile
          BLAS.solveLowerTransposed(block, size: width, stride: size, all + row * size + start, rows: min(tile, size - row))
        }
        let pairs = (0..<strips).flatMap { row in (0...row).map { (row, $0) } }
        Parallel.forEach(pairs.count) { index in
          let (row, column) = (below + pairs[index].0 * tile, below + pairs[index].1 * tile)
          BLAS.subtractProduct(
            all + row * size + start, all + column * size + start, stride: size, rows: min(tile, size - row),
            columns: min(tile, size - column), inner: width, from: all + row * size + column)
        }
      }
      return buffer.indices.lazy.filter { $0 % (size + 1) == 0 }.allSatisfy { buffer[$0].isFinite }
    }
  }
}
