package import Tensors

/// The gradient of a loss with respect to a block's parameters.
package struct BlockGradient: Sendable {
  /// [outputs × inputs], by linear.
  package var weights: [LinearName: Matrix] = [:]
  package var biases: [LinearName: [Float]] = [:]
  /// With respect to what the norms multiply by and add.
  package var norms: [String: [Float]] = [:]
  package var normBiases: [String: [Float]] = [:]
  /// Of tensors that are neither linears nor norms, row by row.
  package var parameters: [String: [Float]] = [:]

  package init() {}
}

/// What one sequence pulls on a block: the gradient before sums over tokens are taken, so that those of a whole batch are one product.
package struct BlockPull: Sendable {
  /// What each linear read and the gradient of what it made, [tokens × features] both. An expert that saw no token has none.
  package var linears: [LinearName: (input: Matrix, output: Matrix)] = [:]
  /// Sums over the sequence.
  package var norms: [String: [Float]] = [:]
  package var normBiases: [String: [Float]] = [:]
  package var parameters: [String: [Float]] = [:]

  package init() {}

  mutating func add(norm name: String, _ weight: [Float], bias: [Float]? = nil) {
    norms[name] = norms[name].map { $0.adding(weight) } ?? weight
    if let bias { normBiases[name] = normBiases[name].map { $0.adding(bias) } ?? bias }
  }

  package mutating func add(parameter name: String, _ gradient: [Float]) {
    parameters[name] = parameters[name].map { $0.adding(gradient) } ?? gradient
  }
}

extension BlockGradient {
  /// The sum over the sequences of a batch, in their order, whatever the number of threads.
  ///
  /// - Parameter wanted: the linears whose weights' gradients are asked for.
  package init(of pulls: [BlockPull], weightsOf wanted: Set<LinearName>) {
    for name in Set(pulls.flatMap(\.linears.keys)) {
      let pairs = pulls.compactMap { $0.linears[name] }
      if wanted.contains(name) { weights[name] = Matrix(summing: pairs) }
      biases[name] = pairs.reduce(into: [Float](repeating: 0, count: pairs[0].output.columns)) { $0 = $0.adding($1.output.columnSums()) }
    }
    for pull in pulls {
      for (name, values) in pull.norms { norms[name] = norms[name].map { $0.adding(values) } ?? values }
      for (name, values) in pull.normBiases { normBiases[name] = normBiases[name].map { $0.adding(values) } ?? values }
      for (name, values) in pull.parameters { parameters[name] = parameters[name].map { $0.adding(values) } ?? values }
    }
  }
}

extension Array where Element == Float {
  /// The sums, element by element.
  package func adding(_ other: [Float]) -> [Float] {
    precondition(count == other.count, "shapes differ")
    return zip(self, other).map { $0 + $1 }
  }
}

extension Matrix {
  /// Σ dYᵀ · X over pairs of what a linear read, X [tokens × inputs], and the gradient of what it made, dY [tokens × outputs].
  ///
  /// Rows of the result are spread over the threads.
  package init(summing pairs: [(input: Matrix, output: Matrix)]) {
    self.init(rows: pairs[0].output.columns, columns: pairs[0].input.columns)
    for pair in pairs { accumulate(pair.output, pair.input) }
  }

  /// self ← self + dYᵀ · X.
  ///
  /// - Parameters:
  ///   - gradient: dY, [tokens × outputs].
  ///   - input: X, [tokens × inputs].
  package mutating func accumulate(_ gradient: Matrix, _ input: Matrix) {
    let (rows, columns) = (rows, columns)
    let strip = 96
    withUnsafeMutableElements { out in
      nonisolated(unsafe) let out = out
      Parallel.forEach((rows + strip - 1) / strip) { index in
        let (first, count) = (index * strip, min(strip, rows - index * strip))
        gradient.withUnsafeElements { gradient in
          input.withUnsafeElements { x in
            BLAS.product(
              gradient + first, stride: rows, leftTransposed: true, x, stride: columns, rows: count, columns: columns,
              inner: input.rows, beta: 1, into: out + first * columns, stride: columns)
          }
        }
      }
    }
  }

  package func columnSums() -> [Float] {
    var sums = [Float](repeating: 0, count: columns)
    sums.withUnsafeMutableBufferPointer { sums in
      guard let sums = sums.baseAddress else { return }
      withUnsafeElements { elements in
        for row in 0..<rows {
          let values = elements + row * columns
          for column in 0..<columns { sums[column] += values[column] }
        }
      }
    }
    return sums
  }
}
