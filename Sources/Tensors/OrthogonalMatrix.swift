internal import Foundation

/// An orthogonal matrix Q, Q · Qᵀ = I, known by what it does to rows: a fast transform or a dense matrix in double.
public struct OrthogonalMatrix: Sendable {
  private enum Form {
    /// diag(signs) · diag(H, H, …), the scale 1/√order among the signs.
    case hadamard(Hadamard, signs: [Double])
    case dense([Double])
  }

  public let size: Int
  private let form: Form

  /// diag(±1) · H / √n with random signs, so that no input direction lines up with a row of H (QuaRot, Ashkboos et al. 2024, section 3).
  ///
  /// Where no Hadamard matrix of the size is known, blocks of the largest order that divides it stand on the diagonal.
  public static func hadamard(size: Int, using random: inout some RandomNumberGenerator) -> OrthogonalMatrix {
    guard let hadamard = Hadamard(order: Hadamard.largestOrder(dividing: size)) else { preconditionFailure("order 1 always exists") }
    let scale = 1 / Double(hadamard.order).squareRoot()
    return OrthogonalMatrix(
      size: size, form: .hadamard(hadamard, signs: (0..<size).map { _ in Bool.random(using: &random) ? scale : -scale }))
  }

  /// An orthogonal matrix uniform over all of them: the orthogonal factor of a Gaussian matrix whose triangular factor has a positive
  /// diagonal (Stewart 1980).
  public static func random(size: Int, using random: inout some RandomNumberGenerator) -> OrthogonalMatrix {
    var elements = (0..<size * size).map { _ in gaussian(&random) }
    let done = elements.withUnsafeMutableBufferPointer { $0.baseAddress.map { BLAS.orthogonalize($0, size: size) } ?? true }
    precondition(done, "LAPACK cannot address a matrix of order \(size)")
    return OrthogonalMatrix(size: size, form: .dense(elements))
  }

  /// The order of the Hadamard blocks on the diagonal; `nil` for a dense matrix.
  public var hadamardOrder: Int? {
    guard case .hadamard(let hadamard, _) = form else { return nil }
    return hadamard.order
  }

  /// Box and Muller 1958; the second number of each pair is not used.
  private static func gaussian(_ random: inout some RandomNumberGenerator) -> Double {
    let radius = (-2 * log(Double.random(in: Double.leastNormalMagnitude...1, using: &random))).squareRoot()
    return radius * cos(2 * .pi * Double.random(in: 0..<1, using: &random))
  }

  /// Replaces each of `count` rows of `size` numbers by its product with Q.
  package func transform(_ rows: UnsafeMutablePointer<Double>, count: Int) {
    switch form {
    case .hadamard(let hadamard, let signs):
      for row in 0..<count { for column in 0..<size { rows[row * size + column] *= signs[column] } }
      hadamard.transform(rows, count: count * (size / hadamard.order))
    case .dense(let elements):
      withUnsafeTemporaryAllocation(of: Double.self, capacity: count * size) { copy in
        copy.baseAddress!.update(from: rows, count: count * size)
        elements.withUnsafeBufferPointer {
          BLAS.product(
            copy.baseAddress!, stride: size, $0.baseAddress!, stride: size, rows: count, columns: size, inner: size, into: rows,
            stride: size)
        }
      }
    }
  }
}

extension Matrix {
  /// self · diag(scale) · diag(Q₀, Q₁, …), computed in double and rounded once.
  ///
  /// - Parameters:
  ///   - blocks: their sizes add up to the columns.
  ///   - scale: a factor per column, applied first; `nil` for none.
  public func times(_ blocks: [OrthogonalMatrix], scaling scale: [Float]? = nil) -> Matrix {
    precondition(blocks.reduce(0) { $0 + $1.size } == self.columns, "the blocks do not add up to the columns")
    precondition((scale?.count ?? self.columns) == self.columns, "a factor for every column is needed")
    let (rows, columns) = (rows, columns)
    return Matrix(rows: rows, columns: columns) { out in
      guard let out = out.baseAddress else { return }
      withUnsafeElements { input in
        nonisolated(unsafe) let (input, out) = (input, out)
        // About 2¹⁶ elements an iteration, and more rows where a dense factor is read for each of them.
        let step = max(32, (1 << 16) / max(columns, 1))
        let widest = blocks.map(\.size).max() ?? 0
        Parallel.forEach((rows + step - 1) / step) { strip in
          let range = strip * step..<min((strip + 1) * step, rows)
          withUnsafeTemporaryAllocation(of: Double.self, capacity: range.count * widest) { buffer in
            let work = buffer.baseAddress!
            var left = 0
            for block in blocks {
              let size = block.size
              for (index, row) in range.enumerated() {
                let from = input + row * columns + left
                for column in 0..<size { work[index * size + column] = Double(from[column]) * Double(scale?[left + column] ?? 1) }
              }
              block.transform(work, count: range.count)
              for (index, row) in range.enumerated() {
                let to = out + row * columns + left
                for column in 0..<size { to[column] = Float(work[index * size + column]) }
              }
              left += size
            }
          }
        }
      }
    }
  }

  /// diag(Q₀, Q₁, …)ᵀ · self, computed in double and rounded once.
  ///
  /// - Parameter blocks: their sizes add up to the rows.
  public func multiplied(onTheLeftByTransposeOf blocks: [OrthogonalMatrix]) -> Matrix { transposed().times(blocks).transposed() }
}
