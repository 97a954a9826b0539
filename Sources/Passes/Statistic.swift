public import Tensors

/// What calibration accumulates about the inputs of a linear layer. A commutative monoid, up to rounding.
public protocol Statistic: Sendable {
  init(features: Int)
  /// - Parameter input: [tokens × features].
  mutating func update(_ input: Matrix)
  mutating func merge(_ other: Self)
}

/// Σ xᵀx over the calibration tokens, the layer-wise proxy Hessian of GPTQ and SparseGPT (the factor 2 never matters).
public struct Hessian: Statistic, Equatable {
  public private(set) var matrix: SymmetricMatrix
  /// Tokens summed.
  public private(set) var tokens = 0
  /// Tokens left out because their input was not finite: they would poison every sum.
  public private(set) var skippedTokens = 0

  public init(features: Int) { matrix = SymmetricMatrix(size: features) }

  public mutating func update(_ input: Matrix) {
    let finite = input.withoutNonfiniteRows()
    skippedTokens += input.rows - finite.rows
    tokens += finite.rows
    matrix.addGram(of: finite)
  }

  public mutating func merge(_ other: Hessian) {
    matrix += other.matrix
    tokens += other.tokens
    skippedTokens += other.skippedTokens
  }
}

/// ‖x‖₂ of every input feature, the activation half of Wanda's score.
public struct InputNorm: Statistic, Equatable {
  private var squares: [Double]
  /// Tokens summed.
  public private(set) var tokens = 0

  public init(features: Int) { squares = Array(repeating: 0, count: features) }

  public var values: [Float] { squares.map { Float($0.squareRoot()) } }

  /// The mean of x² over the tokens: what llama.cpp calls an importance matrix.
  public var meanSquares: [Float] { squares.map { Float($0 / Double(max(1, tokens))) } }

  /// Σ x² of every feature.
  public var squaredValues: [Double] { squares }

  public mutating func update(_ input: Matrix) {
    let input = input.withoutNonfiniteRows()
    tokens += input.rows
    for row in 0..<input.rows { for i in squares.indices { squares[i] += Double(input[row, i]) * Double(input[row, i]) } }
  }

  public mutating func merge(_ other: InputNorm) {
    tokens += other.tokens
    for i in squares.indices { squares[i] += other.squares[i] }
  }
}

/// |x| of every input feature, at its largest: what SmoothQuant scales by, and what static input scales come from.
public struct InputMaximum: Statistic, Equatable {
  public private(set) var values: [Float]

  public init(features: Int) { values = Array(repeating: 0, count: features) }

  public var amax: Float { values.max() ?? 0 }

  public mutating func update(_ input: Matrix) {
    let input = input.withoutNonfiniteRows()
    for row in 0..<input.rows { for i in values.indices { values[i] = max(values[i], abs(input[row, i])) } }
  }

  public mutating func merge(_ other: InputMaximum) { for i in values.indices { values[i] = max(values[i], other.values[i]) } }
}

extension Matrix {
  fileprivate func withoutNonfiniteRows() -> Matrix {
    guard elements.withUnsafeBufferPointer(Kernel.hasNonfinite) else { return self }
    let kept = (0..<rows).filter { row in elements[row * columns..<(row + 1) * columns].allSatisfy(\.isFinite) }
    return Matrix(rows: kept.count, columns: columns, elements: kept.flatMap { elements[$0 * columns..<($0 + 1) * columns] })
  }
}
