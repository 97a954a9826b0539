public import Tensors

/// A weight as two linears one after the other, y = B·(A·x): what a low-rank factorization leaves, and what is stored of it.
///
/// With several groups the outputs are cut into as many stretches of equal height, each of which reads latents of its own: A stacks the
/// groups' input factors, and B, which would be block-diagonal, their output factors.
public struct FactoredWeight: Weight {
  /// A: [groups · rank × inputs].
  public var input: any Weight
  /// B: [outputs × rank].
  public var output: any Weight
  public let groups: Int
  /// The linear of the same block that stores A; `nil` where this one does.
  public var sharesInputOf: LinearName?

  /// - Precondition: the factors fit each other, and `groups` divides the outputs.
  public init(input: any Weight, output: any Weight, groups: Int = 1, sharesInputOf: LinearName? = nil) {
    precondition(input.rows == groups * output.columns, "the factors' ranks differ")
    precondition(output.rows % groups == 0, "\(groups) groups do not divide \(output.rows) outputs")
    self.input = input
    self.output = output
    self.groups = groups
    self.sharesInputOf = sharesInputOf
  }

  public var rows: Int { output.rows }
  public var columns: Int { input.columns }
  /// Of every group.
  public var rank: Int { output.columns }
  /// Numbers between the factors: all groups' latents.
  public var latents: Int { input.rows }
  /// Whether a factor is stored as codes.
  public var isQuantized: Bool { [input, output].contains { $0 is QuantizedMatrix } }
  public var storedBits: Int { storedBits(denseAs: .bfloat16) }

  /// Bits of both factors, or of B alone where another linear stores A; dense factors count as elements of `type`.
  public func storedBits(denseAs type: DType) -> Int {
    Self.bits(output, type) + (sharesInputOf == nil ? Self.bits(input, type) : 0)
  }

  private static func bits(_ factor: any Weight, _ type: DType) -> Int {
    factor is Matrix ? factor.rows * factor.columns * type.bitCount : factor.storedBits
  }

  public func dense() -> Matrix {
    let (a, b) = (input.dense(), output.dense())
    guard groups > 1 else { return b.times(transposed: a.transposed()) }
    let height = rows / groups
    return Matrix(
      stacking: (0..<groups).map { group in
        b.rows(group * height..<(group + 1) * height).times(transposed: a.rows(group * rank..<(group + 1) * rank).transposed())
      })
  }
}
