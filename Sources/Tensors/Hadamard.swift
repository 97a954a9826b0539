internal import CKernels

/// A Hadamard matrix: entries ±1, rows orthogonal, H · Hᵀ = n · I.
///
/// The Kronecker product of matrices by Paley's constructions I and II (Paley 1933), outermost, and Sylvester's of a power of two. A row of
/// n = K₁ ⋯ 2ᵐ numbers is transformed in n·(K₁ + … + m) operations.
public struct Hadamard: Sendable {
  public let order: Int
  /// Orders of the Paley factors, the outermost first, and the power of two inside them.
  public let factors: (paley: [Int], sylvester: Int)
  private let paley: [Paley]

  /// `nil` for an order that is no product of a power of two and orders of Paley's.
  public init?(order: Int) {
    guard let factors = Self.factors(of: order) else { return nil }
    self.order = order
    self.factors = factors
    paley = factors.paley.compactMap { Paley(order: $0) }
    guard paley.count == factors.paley.count else { return nil }
  }

  /// The largest order that divides `size` and is known here; 1 at worst.
  public static func largestOrder(dividing size: Int) -> Int {
    precondition(size > 0, "a size is positive")
    return stride(from: size, to: 1, by: -1).first { size % $0 == 0 && factors(of: $0) != nil } ?? 1
  }

  /// Splits an order into the smallest Paley orders that leave a power of two.
  private static func factors(of order: Int) -> (paley: [Int], sylvester: Int)? {
    guard order > 0 else { return nil }
    if order & (order - 1) == 0 { return ([], order) }
    for factor in stride(from: 12, through: order, by: 4) where order % factor == 0 && factor & (factor - 1) != 0 {
      guard Paley.exists(order: factor), let rest = factors(of: order / factor) else { continue }
      return ([factor] + rest.paley, rest.sylvester)
    }
    return nil
  }

  /// Replaces each of `count` rows of `order` numbers by its product with H.
  package func transform(_ rows: UnsafeMutablePointer<Double>, count: Int) {
    if factors.sylvester > 1 {
      for start in stride(from: 0, to: count * order, by: factors.sylvester) {
        Kernel.walshHadamard(rows + start, count: factors.sylvester)
      }
    }
    guard !paley.isEmpty else { return }
    withUnsafeTemporaryAllocation(of: Double.self, capacity: count * order) { copy in
      var (outer, inner) = (count, order)
      for factor in paley {
        inner /= factor.order
        copy.baseAddress!.update(from: rows, count: count * order)
        factor.transform(copy.baseAddress!, into: rows, outer: outer, inner: inner)
        outer *= factor.order
      }
    }
  }
}

extension Kernel {
  /// x · H in place, with H the Hadamard matrix of Sylvester; `count` is a power of two.
  package static func walshHadamard(_ x: UnsafeMutablePointer<Double>, count: Int) {
    precondition(count > 0 && count & (count - 1) == 0, "a power of two is needed")
    compress_walsh_hadamard(x, count)
  }
}

/// A Hadamard matrix from the squares of a finite field.
private struct Paley {
  let order: Int
  /// Row-major [order × order], ±1; in double, because it is multiplied by.
  private let elements: [Double]

  static func exists(order: Int) -> Bool {
    guard order > 3, order % 4 == 0 else { return false }
    return FiniteField.primePower(order - 1) != nil || (order % 8 == 4 && FiniteField.primePower(order / 2 - 1) != nil)
  }

  init?(order: Int) {
    guard Self.exists(order: order) else { return nil }
    self.order = order
    if FiniteField.primePower(order - 1) != nil {
      // I: the identity plus a skew matrix of the characters of differences; q + 1 with q ≡ 3 (mod 4).
      guard let border = Self.bordered(order: order, corner: -1) else { return nil }
      elements = (0..<order * order).map { border[$0] + ($0 / order == $0 % order ? 1 : 0) }
    } else {
      // II: every entry of the symmetric matrix becomes a block of four; 2 (q + 1) with q ≡ 1 (mod 4).
      let half = order / 2
      guard let border = Self.bordered(order: half, corner: 1) else { return nil }
      elements = (0..<order * order).map { index in
        let (row, column) = (index / order, index % order)
        let isLower = row & 1 == 1 && column & 1 == 1
        guard row / 2 == column / 2 else { return isLower ? -border[row / 2 * half + column / 2] : border[row / 2 * half + column / 2] }
        return row & 1 == 0 && column & 1 == 0 ? 1 : -1
      }
    }
  }

  /// [[0, 1ᵀ], [corner · 1, χ(i − j)]].
  private static func bordered(order: Int, corner: Double) -> [Double]? {
    guard let field = FiniteField(order: order - 1) else { return nil }
    return (0..<order * order).map { index in
      let (row, column) = (index / order, index % order)
      if row == 0 || column == 0 { return row == column ? 0 : row == 0 ? 1 : corner }
      return Double(field.character[field.difference(row - 1, column - 1)])
    }
  }

  /// out[o, j, i] = Σ_k in[o, k, i] · H[k, j].
  func transform(_ input: UnsafePointer<Double>, into out: UnsafeMutablePointer<Double>, outer: Int, inner: Int) {
    elements.withUnsafeBufferPointer { matrix in
      guard inner > 1 else {
        return BLAS.product(
          input, stride: order, matrix.baseAddress!, stride: order, rows: outer, columns: order, inner: order, into: out, stride: order)
      }
      for start in stride(from: 0, to: outer * order * inner, by: order * inner) {
        BLAS.product(
          matrix.baseAddress!, stride: order, leftTransposed: true, input + start, stride: inner, rows: order, columns: inner,
          inner: order, into: out + start, stride: inner)
      }
    }
  }
}
