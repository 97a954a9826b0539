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

  /// A second moment that was summed before, or follows from others, such as that of a projection.
  package init(_ matrix: SymmetricMatrix, tokens: Int, skippedTokens: Int = 0) {
    self.matrix = matrix
    self.tokens = tokens
    self.skippedTokens = skippedTokens
  }

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

  /// What was summed before.
  package init(squares: [Double], tokens: Int) {
    self.squares = squares
    self.tokens = tokens
  }

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
  /// Tokens looked at.
  public private(set) var tokens = 0

  public init(features: Int) { values = Array(repeating: 0, count: features) }

  /// What was found before.
  package init(values: [Float], tokens: Int) {
    self.values = values
    self.tokens = tokens
  }

  public var amax: Float { values.max() ?? 0 }

  public mutating func update(_ input: Matrix) {
    let input = input.withoutNonfiniteRows()
    tokens += input.rows
    for row in 0..<input.rows { for i in values.indices { values[i] = max(values[i], abs(input[row, i])) } }
  }

  public mutating func merge(_ other: InputMaximum) {
    tokens += other.tokens
    for i in values.indices { values[i] = max(values[i], other.values[i]) }
  }
}

/// How the inputs of a group of linears have drifted from those in a reference model: its own second moment and Σ (x₀ − x)·xᵀ, with x₀ what
/// the reference model would have put there.
public struct InputDrift: Sendable {
  public var hessian: Hessian
  /// Σ (x₀ − x)ᵀ·x over the tokens, [features × features], row-major in double precision.
  public private(set) var cross: [Double]

  init(features: Int) {
    hessian = Hessian(features: features)
    cross = Array(repeating: 0, count: features * features)
  }

  /// - Parameters: tokens in rows, those of `reference` in the same order as those of `input`.
  mutating func update(_ input: Matrix, reference: Matrix) {
    // A token that is not finite in either model says nothing about the drift.
    var (own, other) = (input, reference)
    if [own, other].contains(where: { $0.elements.withUnsafeBufferPointer(Kernel.hasNonfinite) }) {
      let kept = (0..<own.rows).filter { row in
        [own, other].allSatisfy { $0.elements[row * own.columns..<(row + 1) * own.columns].allSatisfy(\.isFinite) }
      }
      own = Matrix(stacking: kept.map { input.rows($0..<$0 + 1) })
      other = Matrix(stacking: kept.map { reference.rows($0..<$0 + 1) })
    }
    hessian.update(own)
    let difference = Matrix(rows: own.rows, columns: own.columns, elements: zip(other.elements, own.elements).map { $0 - $1 })
    let features = own.columns
    let strip = 128
    cross.withUnsafeMutableBufferPointer { total in
      own.withUnsafeElements { own in
        difference.withUnsafeElements { difference in
          nonisolated(unsafe) let (total, own, difference) = (total, own, difference)
          Parallel.forEach((features + strip - 1) / strip) { index in
            let (first, height) = (index * strip, min(strip, features - index * strip))
            withUnsafeTemporaryAllocation(of: Float.self, capacity: height * features) { part in
              BLAS.product(
                difference + first, stride: features, leftTransposed: true, own, stride: features, rows: height, columns: features,
                inner: input.rows, into: part.baseAddress!, stride: features)
              for at in 0..<height * features { total[first * features + at] += Double(part[at]) }
            }
          }
        }
      }
    }
  }
}

extension Matrix {
  func withoutNonfiniteRows() -> Matrix {
    guard elements.withUnsafeBufferPointer(Kernel.hasNonfinite) else { return self }
    let kept = (0..<rows).filter { row in elements[row * columns..<(row + 1) * columns].allSatisfy(\.isFinite) }
    return Matrix(rows: kept.count, columns: columns, elements: kept.flatMap { elements[$0 * columns..<($0 + 1) * columns] })
  }
}
