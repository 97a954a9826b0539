import Tensors

/// Which inputs of a linear layer can be done without, when the others make up for them by least squares: units of columns are eliminated
/// greedily, and after every batch the remaining weights are what least squares makes them.
///
/// The loss of leaving a unit u out is tr(W_u · (G⁻¹_uu)⁻¹ · W_uᵀ) with G the second moment of the inputs (Hassibi and Stork 1993, equation 5, for
/// blocks of columns as in Kurtić et al. 2023); eliminating S changes G⁻¹ by −G⁻¹_:S · (G⁻¹_SS)⁻¹ · G⁻¹_S: and W alike.
struct Elimination {
  /// Columns of every unit.
  let units: [[Int]]
  /// Units of one class compete with each other alone.
  let classes: [Int]
  /// Units to leave out of every class.
  let quota: Int
  /// Batches of each run: 1 takes all scores at once.
  var rounds = 32

  /// The units to be left out, and the loss of the whole as tr(E·G·Eᵀ).
  ///
  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - moment: Σ xᵀx of the inputs.
  ///   - damping: added to its diagonal, as a share of the mean.
  /// - Returns: `nil` where the damped moment is not positive definite.
  func run(_ weight: Matrix, moment: SymmetricMatrix, damping: Double) -> (removed: Set<Int>, loss: Double)? {
    let (size, rows) = (moment.size, weight.rows)
    let shift = moment.shift(damping)
    let identity = (0..<size * size).map { $0 % (size + 1) == 0 ? 1.0 : 0 }
    guard var inverse = moment.solve(identity, rows: size, shift: shift) else { return nil }
    var weight = weight.elements.map { Double($0) }
    var removed: Set<Int> = []
    var left = Dictionary(uniqueKeysWithValues: Set(classes).map { ($0, quota) })
    var loss = 0.0
    let total = quota * left.count
    let batch = max(1, (total + rounds - 1) / rounds)
    while removed.count < total {
      let (current, now, isOut) = (inverse, weight, units.indices.map { removed.contains($0) || left[classes[$0]] == 0 })
      let scores = Parallel.map(units.count) { unit in
        isOut[unit] ? .infinity : Self.loss(of: units[unit], current, size: size, now, rows: rows)
      }
      var chosen: [Int] = []
      for unit in units.indices.sorted(by: { (scores[$0], $0) < (scores[$1], $1) }) where chosen.count < batch && scores[unit].isFinite {
        guard left[classes[unit], default: 0] > 0 else { continue }
        left[classes[unit], default: 0] -= 1
        chosen.append(unit)
      }
      guard !chosen.isEmpty else { return nil }
      removed.formUnion(chosen)
      let columns = chosen.flatMap { units[$0] }
      guard let cost = Self.eliminate(columns, &inverse, size: size, &weight, rows: rows) else { return nil }
      loss += cost
    }
    return (removed, loss)
  }

  /// (G⁻¹_SS) and its factorization's answer to right · (G⁻¹_SS)⁻¹.
  private static func corner(_ columns: [Int], _ inverse: [Double], size: Int) -> SymmetricMatrix {
    var corner = SymmetricMatrix(size: columns.count)
    for (row, i) in columns.enumerated() { for column in 0...row { corner[row, column] = inverse[i * size + columns[column]] } }
    return corner
  }

  private static func loss(of columns: [Int], _ inverse: [Double], size: Int, _ weight: [Double], rows: Int) -> Double {
    if columns.count == 1 {
      let column = columns[0]
      return (0..<rows).reduce(0) { $0 + weight[$1 * size + column] * weight[$1 * size + column] } / inverse[column * (size + 1)]
    }
    let part = (0..<rows).flatMap { row in columns.map { weight[row * size + $0] } }
    guard let solved = corner(columns, inverse, size: size).solve(part, rows: rows) else { return .infinity }
    return zip(part, solved).reduce(0) { $0 + $1.0 * $1.1 }
  }

  /// Returns the loss, or `nil` where the columns depend on each other beyond what double precision can tell.
  private static func eliminate(_ columns: [Int], _ inverse: inout [Double], size: Int, _ weight: inout [Double], rows: Int) -> Double? {
    let corner = corner(columns, inverse, size: size)
    let count = columns.count
    let part = (0..<rows).flatMap { row in columns.map { weight[row * size + $0] } }
    // G⁻¹ is symmetric: its columns S are its rows S, transposed.
    let tall = (0..<size).flatMap { row in columns.map { inverse[row * size + $0] } }
    guard let change = corner.solve(part, rows: rows), let factor = corner.solve(tall, rows: size) else { return nil }
    let loss = zip(part, change).reduce(0) { $0 + $1.0 * $1.1 }
    subtract(change, rows: rows, tall, size: size, inner: count, from: &weight)
    subtract(factor, rows: size, tall, size: size, inner: count, from: &inverse)
    for column in columns { for row in 0..<rows { weight[row * size + column] = 0 } }
    return loss
  }

  /// target [rows × size] −= left [rows × inner] · rightᵀ [inner × size].
  private static func subtract(_ left: [Double], rows: Int, _ right: [Double], size: Int, inner: Int, from target: inout [Double]) {
    let strip = 64
    target.withUnsafeMutableBufferPointer { target in
      left.withUnsafeBufferPointer { left in
        right.withUnsafeBufferPointer { right in
          guard let first = target.baseAddress, let tall = left.baseAddress, let wide = right.baseAddress else { return }
          nonisolated(unsafe) let (out, a, b) = (first, tall, wide)
          Parallel.forEach((rows + strip - 1) / strip) { index in
            let first = index * strip
            BLAS.subtractProduct(
              a + first * inner, stride: inner, b, stride: inner, rows: min(strip, rows - first), columns: size, inner: inner,
              from: out + first * size, stride: size)
          }
        }
      }
    }
  }
}

extension SymmetricMatrix {
  /// What damping adds to the diagonal: a share of its mean.
  func shift(_ damping: Double) -> Double { damping * diagonal.reduce(0, +) / Double(max(1, size)) }
}

extension Matrix {
  /// The weight on the inputs that stay that comes closest to the whole on all inputs: W · G_:K · (G_KK + λI)⁻¹ (algorithm notes 12.5), which
  /// minimises ‖W·X − W'·X_K‖².
  ///
  /// - Parameter damping: λ as a share of the mean of G's diagonal; it pulls towards the weight as it is, not towards zero.
  /// - Returns: `nil` where the damped moment is not positive definite.
  func leastSquares(keeping kept: [Int], moment: SymmetricMatrix, damping: Double) -> Matrix? {
    let wide = elements.map { Double($0) }
    let part = moment.elements(rows: Array(0..<columns), columns: kept)
    var target = [Double](repeating: 0, count: rows * kept.count)
    let strip = 32
    let (rows, columns, count) = (rows, columns, kept.count)
    target.withUnsafeMutableBufferPointer { target in
      wide.withUnsafeBufferPointer { wide in
        part.withUnsafeBufferPointer { part in
          guard let first = target.baseAddress, let left = wide.baseAddress, let right = part.baseAddress else { return }
          nonisolated(unsafe) let (out, a, b) = (first, left, right)
          Parallel.forEach((rows + strip - 1) / strip) { index in
            let first = index * strip
            BLAS.product(
              a + first * columns, stride: columns, b, stride: count, rows: min(strip, rows - first), columns: count, inner: columns,
              into: out + first * count, stride: count)
          }
        }
      }
    }
    let shift = moment.shift(damping)
    for row in 0..<rows { for (place, column) in kept.enumerated() { target[row * count + place] += shift * wide[row * columns + column] } }
    let corner = moment.selecting(kept)
    guard let solved = corner.solve(target, rows: rows, shift: shift) else { return nil }
    return Matrix(rows: rows, columns: count, elements: solved.map { Float($0) })
  }
}
