public import Passes
public import Tensors

/// First and second moments of a layer's inputs: everything that importance and compensation ask for, in one visit.
public struct ChannelMoments: Statistic {
  public private(set) var hessian: Hessian
  private var sums: [Double]
  private var magnitudes: [Double]

  public init(features: Int) {
    hessian = Hessian(features: features)
    sums = Array(repeating: 0, count: features)
    magnitudes = sums
  }

  public var tokens: Int { hessian.tokens }
  /// Σ xᵀx.
  public var matrix: SymmetricMatrix { hessian.matrix }

  private func perToken(_ totals: [Double]) -> [Double] { totals.map { $0 / Double(max(1, tokens)) } }

  /// E[x] of every input.
  public var means: [Double] { perToken(sums) }
  /// E|x|.
  public var meanMagnitudes: [Double] { perToken(magnitudes) }
  /// E[x²].
  public var meanSquares: [Double] { perToken(matrix.diagonal) }
  /// E[x²] − E[x]², not below zero.
  public var variances: [Double] { zip(meanSquares, means).map { max(0, $0 - $1 * $1) } }

  public mutating func update(_ input: Matrix) {
    hessian.update(input)
    let width = sums.count
    for row in 0..<input.rows {
      let values = input.elements[row * width..<(row + 1) * width]
      guard values.allSatisfy(\.isFinite) else { continue }
      for (index, value) in values.enumerated() {
        sums[index] += Double(value)
        magnitudes[index] += Double(abs(value))
      }
    }
  }

  public mutating func merge(_ other: ChannelMoments) {
    hessian.merge(other.hessian)
    for index in sums.indices {
      sums[index] += other.sums[index]
      magnitudes[index] += other.magnitudes[index]
    }
  }
}
