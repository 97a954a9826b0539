import CompressKit
import TestSupport
import Testing

/// SparseGPT by its definition, in double precision: a column at a time, with the inverse of what remains of the Hessian (the OBS update of
/// Frantar and Alistarh, equation 3), and no triangular factor anywhere.
private struct Definition {
  var weight: [[Double]]
  var isPruned: [[Bool]]

  init(_ start: Matrix, _ h: [[Double]], pattern: SparsityPattern, sparsity: Double, blockSize: Int) {
    weight = start.doubles
    let (rows, columns) = (start.rows, start.columns)
    isPruned = [[Bool]](repeating: [Bool](repeating: false, count: columns), count: rows)
    // What a removal costs once the columns before it are settled: w² / [(H from that column on)⁻¹]₀₀.
    let inverses = (0..<columns).map { first in inverse((first..<columns).map { i in (first..<columns).map { h[i][$0] } }) }
    func score(_ row: Int, _ column: Int) -> Double { weight[row][column] * weight[row][column] / inverses[column][0][0] }
    for column in 0..<columns {
      switch pattern {
      case .unstructured where column % blockSize == 0:
        let block = column..<min(column + blockSize, columns)
        let places = (0..<rows).flatMap { row in block.map { (row, $0) } }
        let count = Int(sparsity * Double(places.count))
        for (row, at) in places.sorted(by: { score($0.0, $0.1) < score($1.0, $1.1) }).prefix(count) { isPruned[row][at] = true }
      case .grouped(let kept, let group) where column % group == 0:
        for row in 0..<rows {
          let lowest = (column..<column + group).sorted { score(row, $0) < score(row, $1) }.prefix(group - kept)
          for at in lowest { isPruned[row][at] = true }
        }
      default: break
      }
      for row in 0..<rows where isPruned[row][column] {
        let step = weight[row][column] / inverses[column][0][0]
        for later in column..<columns { weight[row][later] -= step * inverses[column][0][later - column] }
        weight[row][column] = 0
      }
    }
  }
}

@Suite struct SparseGPTSolverTests {
  private func solver(
    _ x: Matrix, _ pattern: SparsityPattern = .unstructured, isOrdered: Bool = false, refits: Bool = false
  ) throws -> SparseGPTSolver {
    try SparseGPTSolver.prepare(hessian(x), pattern: pattern, isOrdered: isOrdered, damping: 0.01, refits: refits).get()
  }

  static let patterns: [SparsityPattern] = [
    .unstructured, .grouped(kept: 2, group: 4), .grouped(kept: 4, group: 8), .grouped(kept: 1, group: 4),
  ]

  @Test(arguments: patterns, [8, 32])
  func solvesAsItsDefinitionDoes(pattern: SparsityPattern, blockSize: Int) throws {
    let (x, weight) = (correlated(tokens: 80, features: 32, key: "definition"), Matrix.random(rows: 70, columns: 32, key: "w"))
    let exact = Definition(weight, damped(x, 0.01), pattern: pattern, sparsity: 0.6, blockSize: blockSize)
    let found = try solver(x, pattern).prune(weight, pattern: pattern, sparsity: 0.6, blockSize: blockSize)
    #expect(found.mask.isPruned == exact.isPruned.flatMap { $0 })
    for row in 0..<weight.rows {
      for column in 0..<weight.columns {
        let error = abs(Double(found.weight[row, column]) - exact.weight[row][column])
        #expect(error < 2e-4, "row \(row), column \(column)")
        #expect((found.weight[row, column] == 0) == exact.isPruned[row][column])
      }
    }
  }

  @Test(arguments: patterns, [true, false])
  func theLossItStatesIsTheLoss(pattern: SparsityPattern, isOrdered: Bool) throws {
    let (x, weight) = (correlated(tokens: 150, features: 64, key: "loss"), Matrix.random(rows: 67, columns: 64, key: "w"))
    let h = damped(x, 0.01)
    let solver = try solver(x, pattern, isOrdered: isOrdered, refits: true)
    var solution = solver.prune(weight, pattern: pattern, sparsity: 0.5, blockSize: 16)
    let exact = loss(difference(weight, solution.weight), h)
    #expect(abs(solution.loss - exact) < 1e-3 * exact)
    #expect(abs(solution.norm - loss(weight.doubles, h)) < 1e-3 * solution.norm)
    if case .grouped(let kept, let group) = pattern {
      // Whatever the order, groups are runs of the stored columns.
      for start in stride(from: 0, to: weight.elements.count, by: group) {
        #expect(solution.mask.isPruned[start..<start + group].count { !$0 } == kept)
      }
    } else {
      #expect(abs(solution.mask.sparsity - 0.5) < 1e-6)
    }
    let before = solution
    solver.refit(&solution, toward: weight)
    #expect(solution.mask == before.mask && solution.loss < before.loss)
    let better = loss(difference(weight, solution.weight), h)
    #expect(abs(solution.loss - better) < 1e-3 * better)
  }

  @Test func theRefitSolvesTheNormalEquations() throws {
    let (x, weight) = (correlated(tokens: 90, features: 24, key: "normal"), Matrix.random(rows: 9, columns: 24, key: "w"))
    let h = damped(x, 0.01)
    let solver = try solver(x, refits: true)
    let start = solver.prune(weight, pattern: .unstructured, sparsity: 0.5, blockSize: 24)
    var refit = try #require(solver.kept)
    refit.tolerance = 1e-5
    var solution = start
    (solution.weight, solution.loss) = refit.solve(start.weight, mask: start.mask, toward: weight)
    // Where the search ends by default, all but a hundredth of what there is to gain has been gained.
    var early = start
    solver.refit(&early, toward: weight)
    #expect(early.loss - solution.loss < 0.01 * (start.loss - solution.loss))
    for row in 0..<weight.rows {
      let kept = (0..<24).filter { !solution.mask.isPruned[row * 24 + $0] }
      guard !kept.isEmpty else { continue }
      let inverted = inverse(kept.map { i in kept.map { h[i][$0] } })
      let right = kept.map { i in (0..<24).reduce(0.0) { $0 + h[i][$1] * Double(weight[row, $1]) } }
      for (index, column) in kept.enumerated() {
        let expected = kept.indices.reduce(0.0) { $0 + inverted[index][$1] * right[$1] }
        #expect(abs(Double(solution.weight[row, column]) - expected) < 2e-3 * max(1, abs(expected)), "row \(row), column \(column)")
      }
      for column in 0..<24 where !kept.contains(column) { #expect(solution.weight[row, column] == 0) }
    }
  }

  @Test func aGivenMaskIsKeptAndLosesLessThanWithoutCorrection() throws {
    let (x, weight) = (correlated(tokens: 200, features: 48, key: "given"), Matrix.random(rows: 30, columns: 48, key: "w"))
    let scores = Matrix(rows: 30, columns: 48, elements: weight.elements.map { abs($0) })
    let mask = SparsityMask(scores: scores, pattern: .unstructured, sparsity: 0.5, comparing: .row)
    let solution = try solver(x).prune(weight, mask: mask, pattern: .unstructured, sparsity: 0)
    #expect(solution.mask == mask && SparsityMask(zerosOf: solution.weight) == mask)
    #expect(solution.loss < loss(difference(weight, mask.applied(to: weight)), damped(x, 0.01)))
    // Chosen zeros cost less than the same number of the smallest weights.
    #expect(try solver(x).prune(weight, pattern: .unstructured, sparsity: 0.5).loss < solution.loss)
  }

  @Test func weightsOfDeadInputsGoFirst() throws {
    var x = correlated(tokens: 60, features: 16, key: "dead")
    for row in 0..<x.rows { for column in [3, 4, 9] { x[row, column] = 0 } }
    let weight = Matrix.random(rows: 8, columns: 16, key: "w")
    for pattern in [SparsityPattern.unstructured, .grouped(kept: 2, group: 4)] {
      let solver = try solver(x, pattern)
      #expect(solver.factorization.deadInputs == 3)
      let solution = solver.prune(weight, pattern: pattern, sparsity: 0.5, blockSize: 16)
      for row in 0..<8 { for column in [3, 4, 9] { #expect(solution.mask.isPruned[row * 16 + column]) } }
    }
  }

  @Test func threadsDoNotMatter() throws {
    let (x, weight) = (correlated(tokens: 100, features: 64, key: "threads"), Matrix.random(rows: 200, columns: 64, key: "w"))
    func solve() throws -> Matrix {
      let solver = try solver(x, refits: true)
      var solution = solver.prune(weight, pattern: .unstructured, sparsity: 0.5, blockSize: 16)
      solver.refit(&solution, toward: weight)
      return solution.weight
    }
    let one = try Parallel.$width.withValue(1) { try solve() }
    #expect(try Parallel.$width.withValue(3) { try solve() } == one)
  }
}

/// Against llm-compressor's own functions.
@Suite struct SparsityPeerTests {
  @Test func zerosAndWeightsAreThePeers() throws {
    let json = try fixture("sparsity")
    let (weight, x) = (try #require(json["weights"]).matrix(), try #require(json["inputs"]).matrix().transposed())
    let cases = try #require(json["cases"]?.elements)
    #expect(cases.count == 11)
    for golden in cases {
      let expected = try #require(golden["pruned"]).matrix()
      let (kept, group) = (try #require(golden["kept"]?.integer), try #require(golden["group"]?.integer))
      let pattern = group > 0 ? SparsityPattern.grouped(kept: kept, group: group) : .unstructured
      let (share, block) = (try #require(golden["sparsity"]?.double), try #require(golden["block_size"]?.integer))
      let found: Matrix
      if golden["method"]?.string == "sparsegpt" {
        let solver = try SparseGPTSolver.prepare(hessian(x), pattern: pattern, isOrdered: false, damping: 0.01, refits: false).get()
        // One more than the share says.
        let count = Double(weight.rows * block)
        found = solver.prune(weight, pattern: pattern, sparsity: ((share * count).rounded(.down) + 1.001) / count, blockSize: block).weight
      } else {
        var norm = InputNorm(features: x.columns)
        norm.update(x)
        let norms = norm.values
        let scores = Matrix(
          rows: weight.rows, columns: weight.columns,
          elements: weight.elements.enumerated().map { abs($1) * norms[$0 % weight.columns] })
        found = SparsityMask(scores: scores, pattern: pattern, sparsity: share, comparing: .row).applied(to: weight)
      }
      let text = "\(golden["method"]?.string ?? "") \(pattern) \(share) \(block)"
      #expect(SparsityMask(zerosOf: found) == SparsityMask(zerosOf: expected), "\(text)")
      let largest = expected.elements.map { abs($0) }.max()!
      for (own, peer) in zip(found.elements, expected.elements) { #expect(abs(own - peer) <= 2e-4 * largest, "\(text)") }
    }
  }
}
