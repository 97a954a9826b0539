package import Models
internal import Quantization
package import Tensors

/// Moves the kept weights of every output to where tr((W − T)·H·(W − T)ᵀ) is smallest: the normal equations H_SS·w_S = (H·t)_S, with another
/// support S for every output.
///
/// A factorization per output would take n³ each. Conjugate gradients, with the diagonal of H to precondition them, advance all outputs of
/// a strip with one matrix product per step, and are only ever better than what they start from.
package struct LeastSquaresOnSupport: Sendable {
  /// The damped Hessian in units of its mean diagonal, [inputs × inputs].
  private let hessian: Matrix
  private let inverseDiagonal: [Float]

  /// - Parameter damping: added to the diagonal, as a fraction of its mean over live inputs. Dead inputs take that mean, as in `GPTQSolver`.
  init(_ matrix: SymmetricMatrix, damping: Double) {
    let size = matrix.size
    let diagonal = matrix.diagonal
    let live = diagonal.filter { $0 > 0 }
    let mean = live.isEmpty ? 1 : live.reduce(0, +) / Double(live.count)
    // In units of the mean, so that no square leaves the range of single precision.
    hessian = Matrix(rows: size, columns: size) { out in
      for row in 0..<size {
        for column in 0..<row {
          let value = Float(matrix.lower[row * size + column] / mean)
          (out[row * size + column], out[column * size + row]) = (value, value)
        }
        out[row * size + row] = Float((diagonal[row] > 0 ? diagonal[row] / mean : 1) + damping)
      }
    }
    unit = mean
    inverseDiagonal = (0..<size).map { [hessian] in 1 / hessian[$0, $0] }
  }

  private let unit: Double
  /// Steps after which what is reached is taken; every one of them is an improvement.
  static let steps = 100
  /// The preconditioned residual, relative to that of the start, which ends the search. What is gained beyond belongs to the calibration data
  /// alone: on other text 1e-5 is worse (2:4 of pocket-llama: KL divergence 0.1253 against 0.1219).
  package var tolerance = 1e-2

  /// - Parameters:
  ///   - start: [outputs × inputs], zero where the mask says so.
  ///   - target: T.
  /// - Returns: the weight and its loss tr((W − T)·H·(W − T)ᵀ), with the damped H.
  package func solve(_ start: Matrix, mask: SparsityMask, toward target: Matrix) -> (weight: Matrix, loss: Double) {
    let (rows, columns) = (start.rows, start.columns)
    precondition(columns == hessian.rows && target.columns == columns && target.rows == rows, "shapes differ")
    // Every product reads all of H, which pays for many rows only; an even number of strips keeps two cores busy to the end.
    let strips = max(1, (rows + 511) / 512) * 2
    let height = (rows + strips - 1) / strips
    let parts: [(weight: Matrix, loss: Double)] = Parallel.map((rows + height - 1) / height) { index in
      let range = index * height..<min((index + 1) * height, rows)
      let flags = mask.isPruned[range.lowerBound * columns..<range.upperBound * columns].map { $0 ? Float(0) : 1 }
      return descend(from: start.rows(range), allowing: flags, toward: target.rows(range))
    }
    return (Matrix(stacking: parts.map(\.weight)), parts.reduce(0) { $0 + $1.loss } * unit)
  }

  private func descend(from start: Matrix, allowing support: [Float], toward target: Matrix) -> (Matrix, Double) {
    let (rows, columns) = (start.rows, start.columns)
    var weight = start
    var residual = target
    residual.subtract(weight)
    residual = residual.times(transposed: hessian)
    var direction = Matrix(rows: rows, columns: columns)
    var energies = [Double](repeating: 0, count: rows)
    var targets = energies
    for step in 0...Self.steps {
      var isDone = true
      for row in 0..<rows {
        // r ← r on the support; z = r / diag H; β = ⟨r, z⟩ / the one before.
        let base = row * columns
        var energy = 0.0
        residual.withUnsafeMutableElements { r in
          support.withUnsafeBufferPointer { s in
            for column in 0..<columns {
              r[base + column] *= s[base + column]
              energy += Double(r[base + column] * r[base + column] * inverseDiagonal[column])
            }
          }
        }
        if step == 0 { targets[row] = energy * tolerance * tolerance }
        let beta = step == 0 || energies[row] == 0 ? 0 : Float(energy / energies[row])
        energies[row] = energy
        if energy > targets[row] { isDone = false }
        direction.withUnsafeMutableElements { p in
          residual.withUnsafeElements { r in
            for column in 0..<columns {
              p[base + column] = r[base + column] * inverseDiagonal[column] + beta * p[base + column]
            }
          }
        }
      }
      if isDone || step == Self.steps { break }
      let image = direction.times(transposed: hessian)
      for row in 0..<rows where energies[row] > targets[row] {
        let base = row * columns
        var curvature = 0.0
        direction.withUnsafeElements { p in
          image.withUnsafeElements { q in for at in base..<base + columns { curvature += Double(p[at] * q[at]) } }
        }
        guard curvature > 0 else { continue }
        let length = Float(energies[row] / curvature)
        direction.withUnsafeElements { p in
          weight.withUnsafeMutableElements { w in for at in base..<base + columns { w[at] += length * p[at] } }
        }
        image.withUnsafeElements { q in
          residual.withUnsafeMutableElements { r in for at in base..<base + columns { r[at] -= length * q[at] } }
        }
      }
    }
    var error = target
    error.subtract(weight)
    let image = error.times(transposed: hessian)
    return (weight, zip(error.elements, image.elements).reduce(0) { $0 + Double($1.0) * Double($1.1) })
  }
}
