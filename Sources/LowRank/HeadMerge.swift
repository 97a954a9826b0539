import Models
import Tensors

/// How the keys and values of several heads are made one.
public enum HeadMergeMethod: String, Sendable, Codable, CaseIterable {
  /// The plain mean.
  case mean
  /// The mean after each head was turned towards the others.
  case procrustes
  /// Principal components.
  case components
}

/// How several key-value heads become one: linear maps that are folded into the projections around attention.
///
/// With k_j ≈ C_j·k̄ and v_j ≈ P_j·v̄ for the heads j of a group, queries of head j become C_jᵀ·q and the output projection's columns of head j
/// become W_o·P_j. Values may take any P_j. Keys are rotated by position between the projection and the product with the queries, so C_j must
/// commute with the rotation: on every pair of dimensions that turns together, it multiplies by one complex number.
struct HeadMerge {
  /// k̄ = keys · [k_1; k_2; …], [head size × heads · head size].
  var keys: DoubleMatrix
  /// C_j, one for each head.
  var queries: [DoubleMatrix]
  /// v̄ = values · [v_1; v_2; …].
  var values: DoubleMatrix
  /// P_j, one for each head.
  var outputs: [DoubleMatrix]
}

extension HeadMerge {
  /// The plain mean of the heads (Ainslie et al. 2023).
  static func mean(heads: Int, size: Int) -> HeadMerge {
    let identity = DoubleMatrix(diagonal: [Double](repeating: 1, count: size))
    let average = DoubleMatrix(stacking: (0..<heads).map { _ in identity.scaled(by: 1 / Double(heads)) }).transposed()
    let all = [DoubleMatrix](repeating: identity, count: heads)
    return HeadMerge(keys: average, queries: all, values: average, outputs: all)
  }
}

/// What is known of the keys or values of a group of heads over the calibration data.
struct HeadMoments {
  let heads: Int
  let size: Int
  /// Σ y·yᵀ of all heads' outputs one after the other, [heads · size] squared.
  let moment: DoubleMatrix

  private func block(_ row: Int, _ column: Int) -> DoubleMatrix {
    DoubleMatrix(
      rows: size, columns: size,
      elements: (0..<size).flatMap { r in (0..<size).map { moment[row * size + r, column * size + $0] } })
  }

  /// Σ over the heads of ‖y_j − P_j·ȳ‖², as a share of ‖y‖².
  func relativeError(_ mean: DoubleMatrix, _ parts: [DoubleMatrix]) -> Double {
    let total = (0..<heads * size).reduce(0.0) { $0 + moment[$1, $1] }
    let error = DoubleMatrix(diagonal: [Double](repeating: 1, count: heads * size)).subtracting(DoubleMatrix(stacking: parts).times(mean))
    return total > 0 ? error.energy(under: moment) / total : 0
  }

  // MARK: Values

  /// Orthogonal P_j that bring the heads as near to their mean as rotations can (generalized Procrustes analysis, Gower 1975).
  func procrustes() -> (mean: DoubleMatrix, parts: [DoubleMatrix]) {
    var parts = (0..<heads).map { $0 == 0 ? DoubleMatrix(diagonal: [Double](repeating: 1, count: size)) : block($0, 0).orthogonalFactor() }
    for _ in 0..<30 {
      for head in 0..<heads {
        var target = block(head, 0).times(parts[0])
        for other in 1..<heads { target = target.adding(block(head, other).times(parts[other])) }
        parts[head] = target.orthogonalFactor()
      }
    }
    return (DoubleMatrix(stacking: parts).transposed().scaled(by: 1 / Double(heads)), parts)
  }

  /// The best P_j of all: principal components of the heads together, each under the metric in which its errors count.
  ///
  /// - Parameter roots: symmetric roots of the metrics, one for each head.
  func components(roots: [DoubleMatrix]) -> (mean: DoubleMatrix, parts: [DoubleMatrix])? {
    var weighted = moment
    for row in 0..<heads {
      for column in 0..<heads {
        let part = roots[row].times(block(row, column)).times(roots[column])
        for r in 0..<size { for c in 0..<size { weighted[row * size + r, column * size + c] = part[r, c] } }
      }
    }
    guard let found = weighted.eigenvectors() else { return nil }
    let kept = found.vectors.rows(0..<size)
    let stretches = (0..<heads).map { head in
      DoubleMatrix(rows: size, columns: size, elements: (0..<size).flatMap { r in (0..<size).map { kept[r, head * size + $0] } })
    }
    var parts: [DoubleMatrix] = []
    for (root, stretch) in zip(roots, stretches) {
      guard let inverse = root.pseudoinverse() else { return nil }
      parts.append(inverse.times(stretch.transposed()))
    }
    return (DoubleMatrix(stacking: zip(roots, stretches).map { $0.times($1.transposed()) }).transposed(), parts)
  }

  // MARK: Keys

  /// One complex number c for every head and pair of dimensions, with k_j ≈ c_j·k̄.
  ///
  /// - Parameters:
  ///   - weights: how much an error of a head's pair counts, [heads × size / 2].
  ///   - onlyTurns: whether the numbers have magnitude 1 (Procrustes), and the mean is one; otherwise they are the principal component.
  func pairs(weights: [[Double]], onlyTurns: Bool) -> (mean: DoubleMatrix, parts: [DoubleMatrix])? {
    let half = size / 2
    let zero = [Double](repeating: 0, count: size * size)
    var parts = [DoubleMatrix](repeating: DoubleMatrix(rows: size, columns: size, elements: zero), count: heads)
    var mean = DoubleMatrix(rows: size, columns: heads * size, elements: [Double](repeating: 0, count: size * size * heads))
    for pair in 0..<half {
      // The Hermitian moment of the complex keys x + i·y as a real symmetric matrix of twice the size.
      var real = DoubleMatrix(rows: 2 * heads, columns: 2 * heads, elements: [Double](repeating: 0, count: 4 * heads * heads))
      for a in 0..<heads {
        for b in 0..<heads {
          let (x, y, u, v) = (a * size + pair, a * size + pair + half, b * size + pair, b * size + pair + half)
          let scale = onlyTurns ? 1 : (weights[a][pair] * weights[b][pair]).squareRoot()
          let (re, im) = (scale * (moment[x, u] + moment[y, v]), scale * (moment[y, u] - moment[x, v]))
          real[a, b] = re
          real[heads + a, heads + b] = re
          real[heads + a, b] = im
          real[a, heads + b] = -im
        }
      }
      guard let found = real.eigenvectors() else { return nil }
      var c = (0..<heads).map { (re: found.vectors[0, $0], im: found.vectors[0, heads + $0]) }
      if onlyTurns {
        // Phases that make the sum largest, head after head until nothing moves.
        func turn(_ z: (re: Double, im: Double)) -> (re: Double, im: Double) {
          let size = (z.re * z.re + z.im * z.im).squareRoot()
          return size > 0 ? (z.re / size, z.im / size) : (1, 0)
        }
        c = c.map(turn)
        for _ in 0..<50 {
          for a in 0..<heads {
            var sum = (re: 0.0, im: 0.0)
            for b in 0..<heads where b != a {
              sum.re += real[a, b] * c[b].re - real[heads + a, b] * c[b].im
              sum.im += real[a, b] * c[b].im + real[heads + a, b] * c[b].re
            }
            c[a] = turn(sum)
          }
        }
      }
      for head in 0..<heads {
        // k̄ = Σ conj(c)·k, weighted as the errors are; k_j ≈ c·k̄.
        let weight = onlyTurns ? 1 : weights[head][pair].squareRoot()
        let forward = onlyTurns ? 1 / Double(heads) : weight
        let back = onlyTurns ? 1 : weight > 0 ? 1 / weight : 0
        for (row, column, value) in complexEntries(pair, half, (c[head].re, -c[head].im)) {
          mean[row, head * size + column] = forward * value
        }
        for (row, column, value) in complexEntries(pair, half, c[head]) { parts[head][row, column] = back * value }
      }
    }
    return (mean, parts)
  }

  /// Multiplication by a complex number on one pair of dimensions.
  private func complexEntries(_ pair: Int, _ half: Int, _ c: (re: Double, im: Double)) -> [(Int, Int, Double)] {
    [(pair, pair, c.re), (pair, pair + half, -c.im), (pair + half, pair, c.im), (pair + half, pair + half, c.re)]
  }
}

extension DoubleMatrix {
  func adding(_ other: DoubleMatrix) -> DoubleMatrix {
    DoubleMatrix(rows: rows, columns: columns, elements: zip(elements, other.elements).map { $0 + $1 })
  }

  /// f applied to the eigenvalues of a positive semidefinite matrix; those below rounding count as 0.
  private func spectral(_ f: (Double) -> Double) -> DoubleMatrix? {
    guard let (values, vectors) = eigenvectors() else { return nil }
    let smallest = 1e-12 * (values.first ?? 0)
    var scaled = vectors
    for row in 0..<rows { for column in 0..<columns { scaled[row, column] *= values[row] > smallest ? f(values[row]) : 0 } }
    return vectors.transposed().times(scaled)
  }

  /// The symmetric root of a positive semidefinite matrix.
  func root() -> DoubleMatrix? { spectral { $0.squareRoot() } }

  /// Of a positive semidefinite matrix.
  func pseudoinverse() -> DoubleMatrix? { spectral { 1 / $0 } }

  /// U·Vᵀ of the singular value decomposition: the orthogonal matrix nearest to a square one. Directions that the matrix does not reach are
  /// completed in the order of the unit vectors.
  func orthogonalFactor() -> DoubleMatrix {
    guard let (values, right) = transposed().times(self).eigenvectors() else { return self }
    let images = right.times(transposed())
    var left: [[Double]] = []
    func orthogonalized(_ vector: [Double]) -> [Double]? {
      var vector = vector
      for _ in 0..<2 {
        for done in left {
          let part = zip(done, vector).reduce(0.0) { $0 + $1.0 * $1.1 }
          for index in vector.indices { vector[index] -= part * done[index] }
        }
      }
      let norm = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
      return norm > 1e-8 ? vector.map { $0 / norm } : nil
    }
    for row in 0..<rows {
      let image = (0..<rows).map { images[row, $0] }
      let size = values[row].squareRoot()
      let isReached = values[row] > 1e-14 * values[0] && size > 0
      if isReached, let unit = orthogonalized(image.map { $0 / size }) {
        left.append(unit)
        continue
      }
      for axis in 0..<rows {
        if let unit = orthogonalized((0..<rows).map { $0 == axis ? 1 : 0 }) {
          left.append(unit)
          break
        }
      }
    }
    return DoubleMatrix(rows: rows, columns: rows, elements: left.flatMap { $0 }).transposed().times(right)
  }
}
