package import Passes
package import Tensors

extension GPTQSolver {
  /// The weight that undoes drifted inputs best, on the way to which `strength` is taken.
  ///
  /// ‖W·X₀ − Q·X‖² = ‖(Q − W*)·X‖² + const with W* = W + W·D·H⁻¹ and D = (X₀ − X)·Xᵀ, so that quantizing W* by the plain algorithm
  /// minimises the error against the original model's outputs. GPTAQ (Li et al. 2025) approximates the same correction column by column;
  /// the regression is exact, and less than all of it keeps the calibration data from being fitted too closely.
  package func corrected(_ weight: Matrix, for drift: InputDrift, by strength: Double) -> Matrix {
    corrected(weight, cross: drift.cross, by: strength)
  }

  /// - Parameter crossMoment: D [inputs × inputs], row-major.
  func corrected(_ weight: Matrix, cross crossMoment: [Double], by strength: Double) -> Matrix {
    let size = weight.columns
    precondition(crossMoment.count == size * size, "the drift has other features than the weight")
    let cross = Matrix(rows: size, columns: size, elements: crossMoment.map { Float($0) })
    var result = weight
    let strip = 64
    result.withUnsafeMutableElements { out in
      weight.withUnsafeElements { weightElements in
        cross.withUnsafeElements { cross in
          factor.unitUpper.withUnsafeElements { upper in
            nonisolated(unsafe) let (out, weightElements, cross, upper) = (out, weightElements, cross, upper)
            Parallel.forEach((weight.rows + strip - 1) / strip) { index in
              let rows = index * strip..<min((index + 1) * strip, weight.rows)
              var part = [Float](repeating: 0, count: rows.count * size)
              var arranged = part
              part.withUnsafeMutableBufferPointer {
                BLAS.product(
                  weightElements + rows.lowerBound * size, stride: size, cross, stride: size, rows: rows.count, columns: size, inner: size,
                  into: $0.baseAddress!, stride: size)
              }
              for row in 0..<rows.count {
                for (position, column) in order.enumerated() { arranged[row * size + position] = part[row * size + column] }
              }
              // H⁻¹ = U⁻ᵀ·D⁻¹·U⁻¹, from the right.
              arranged.withUnsafeMutableBufferPointer {
                let base = $0.baseAddress!
                BLAS.solveUnitUpper(upper, size: size, transposed: true, base, rows: rows.count)
                for row in 0..<rows.count {
                  for position in 0..<size { base[row * size + position] /= Float(factor.pivots[position]) }
                }
                BLAS.solveUnitUpper(upper, size: size, transposed: false, base, rows: rows.count)
              }
              for row in 0..<rows.count {
                for (position, column) in order.enumerated() {
                  out[(rows.lowerBound + row) * size + column] += Float(strength) * arranged[row * size + position]
                }
              }
            }
          }
        }
      }
    }
    return result
  }
}
