import Models
import Passes
import Tensors

/// Which dimensions, or directions, of the residual stream stay.
struct HiddenReductionAnalysis: Analysis {
  enum Choice: Hashable, Sendable {
    case dimensions(PruneWidth)
    /// The leading eigenvectors of what enters the norms.
    case directions(SliceGPT)
  }

  let choice: Choice

  func heldStates(of description: ModelDescription) -> Int { 3 }

  func answer(for model: Model, in context: AnalysisContext) async throws -> HiddenReduction {
    let hidden = model.description.hiddenSize
    let size: Int
    switch choice {
    case .dimensions(let pass): size = try pass.reshape(model.description).hiddenSize
    case .directions(let pass): size = try pass.reshape(model.description).hiddenSize
    }
    if context.isRehearsal {
      switch choice {
      case .dimensions: return HiddenReduction(basis: .dimensions(Array(0..<size)), shares: [:])
      case .directions:
        var rows = Matrix(rows: size, columns: hidden)
        for index in 0..<size { rows[index, index] = 1 }
        return HiddenReduction(basis: .directions(rows), shares: [:])
      }
    }
    let walk = try ModelWalk(model, context)
    switch choice {
    case .dimensions(let pass): return try dimensions(size, pass, walk, model, context)
    case .directions: return try directions(size, walk, context)
    }
  }

  // MARK: Dimensions

  /// Sums over the tokens that enter one norm.
  private struct Sums {
    var tokens = 0
    /// x² / ‖x‖² of the norm's input.
    var shares: [Double]
    var (sums, magnitudes, squares): ([Double], [Double], [Double])

    init(_ size: Int) {
      shares = Array(repeating: 0, count: size)
      (sums, magnitudes, squares) = (shares, shares, shares)
    }

    /// - Parameter weight: of the norm.
    mutating func add(_ input: Matrix, _ weight: [Float]) {
      for row in 0..<input.rows {
        let values = input.elements[row * input.columns..<(row + 1) * input.columns]
        let square = values.reduce(0) { $0 + Double($1) * Double($1) }
        guard square > 0, square.isFinite else { continue }
        tokens += 1
        let scale = (Double(input.columns) / square).squareRoot()
        for (index, value) in values.enumerated() {
          shares[index] += Double(value) * Double(value) / square
          let output = Double(value) * scale * Double(weight[index])
          sums[index] += output
          magnitudes[index] += abs(output)
          squares[index] += output * output
        }
      }
    }

    static func + (a: Sums, b: Sums) -> Sums {
      func added(_ a: [Double], _ b: [Double]) -> [Double] { zip(a, b).map { $0 + $1 } }
      var total = a
      total.tokens += b.tokens
      (total.shares, total.sums) = (added(a.shares, b.shares), added(a.sums, b.sums))
      (total.magnitudes, total.squares) = (added(a.magnitudes, b.magnitudes), added(a.squares, b.squares))
      return total
    }
  }

  private func dimensions(
    _ size: Int, _ pass: PruneWidth, _ walk: ModelWalk, _ model: Model, _ context: AnalysisContext
  ) throws -> HiddenReduction {
    let hidden = model.description.hiddenSize
    var scores = [Double](repeating: 0, count: hidden)
    var shares: [(module: String, values: [Double])] = []
    try walk.visitNorms(progress: context.progress) { norm, inputs in
      let sums = Parallel.map(inputs.count) { sequence in
        var sums = Sums(hidden)
        sums.add(inputs[sequence], norm.weight)
        return sums
      }.reduce(Sums(hidden), +)
      let tokens = Double(max(1, sums.tokens))
      shares.append((norm.module, sums.shares.map { $0 / tokens }))
      let readers = norm.readers.map { $0.transposed().rowSquares }
      for index in 0..<hidden {
        let weight = readers.reduce(0) { $0 + $1[index] }
        let (mean, square) = (sums.sums[index] / tokens, sums.squares[index] / tokens)
        switch pass.importance {
        case .activations: scores[index] += sums.magnitudes[index] / tokens
        case .fluctuation: scores[index] += max(0, square - mean * mean) * weight
        case .wanda, .reconstruction: scores[index] += (square * weight).squareRoot()
        case .magnitude: scores[index] += weight
        case .random: break
        }
      }
    }
    if pass.importance == .random {
      var random = KeyedRandomness(seed: context.seed, key: PruneWidth.name, "hidden")
      scores = scores.map { _ in Double.random(in: 0..<1, using: &random) }
    }
    let kept = scores.indices.sorted { (scores[$0], $1) > (scores[$1], $0) }.prefix(size).sorted()
    return HiddenReduction(
      basis: .dimensions(kept),
      shares: Dictionary(uniqueKeysWithValues: shares.map { norm in (norm.module, kept.reduce(0) { $0 + norm.values[$1] }) }))
  }

  // MARK: Directions

  private func directions(_ size: Int, _ walk: ModelWalk, _ context: AnalysisContext) throws -> HiddenReduction {
    let hidden = walk.model.description.hiddenSize
    var total = SymmetricMatrix(size: hidden)
    try walk.visitNorms { _, inputs in for input in inputs { total.addGram(of: input.unitRows()) } }
    guard let rows = total.leadingEigenvectors(size) else {
      throw InvalidOption("hidden", "the eigenvectors of the hidden states could not be found: are they all finite?")
    }
    var shares: [String: Double] = [:]
    try walk.visitNorms(progress: context.progress) { norm, inputs in
      let parts: [(Double, Int)] = Parallel.map(inputs.count) { sequence in
        let input = inputs[sequence].unitRows()
        return (input.times(transposed: rows).rowSquares.reduce(0, +), input.rows)
      }
      shares[norm.module] = parts.reduce(0) { $0 + $1.0 } / Double(max(1, parts.reduce(0) { $0 + $1.1 }))
    }
    return HiddenReduction(basis: .directions(rows), shares: shares)
  }
}

extension Matrix {
  /// Every row divided by its length; rows without one are left out.
  func unitRows() -> Matrix {
    let lengths = rowSquares.map { $0.squareRoot() }
    let kept = (0..<rows).filter { lengths[$0] > 0 && lengths[$0].isFinite }
    return Matrix(
      rows: kept.count, columns: columns,
      elements: kept.flatMap { row in
        let inverse = Float(1 / lengths[row])
        return elements[row * columns..<(row + 1) * columns].map { $0 * inverse }
      })
  }
}
