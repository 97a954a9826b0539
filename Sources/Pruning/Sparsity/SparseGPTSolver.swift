package import Models
package import Passes
package import Quantization
package import Tensors

/// The solve of SparseGPT for all linears that share an input, and the least squares of what it keeps.
///
/// It is GPTQ's in the LDL form (see `GPTQSolver`), on a grid that holds zero and the weight itself: with the damped Hessian H = U·D·Uᵀ,
/// column i has the target tᵢ = wᵢ + Σ_{j<i} (wⱼ − qⱼ)·Uⱼᵢ, and removing its weight costs Dᵢ·tᵢ². The paper's score w²/[H⁻¹]ᵢᵢ of the columns
/// still free is the same number, since Dᵢ is the inverse of the square of the Cholesky factor's diagonal.
package struct SparseGPTSolver: Sendable {
  package let factorization: GPTQSolver
  /// Dᵢ by position; zero for inputs that no calibration token activates, whose weights go first.
  package let pivots: [Float]
  package let kept: LeastSquaresOnSupport?

  /// - Parameters:
  ///   - isOrdered: whether the most active inputs are taken first, in groups of the pattern.
  ///   - refits: whether `kept` is wanted.
  package static func prepare(
    _ hessian: Hessian, pattern: SparsityPattern, isOrdered: Bool, damping: Double, refits: Bool
  ) -> Result<SparseGPTSolver, GPTQSolver.Failure> {
    var (order, size) = (isOrdered ? GPTQ.Order.activation : .natural, 1)
    if case .grouped(_, let group) = pattern, isOrdered { (order, size) = (.group, group) }
    return GPTQSolver.prepare(hessian, groupSize: size, order: order, damping: damping).map { solver in
      let diagonal = hessian.matrix.diagonal
      return SparseGPTSolver(
        factorization: solver,
        pivots: solver.order.enumerated().map { diagonal[$1] > 0 ? Float(solver.factor.pivots[$0]) : 0 },
        kept: refits ? LeastSquaresOnSupport(hessian.matrix, damping: solver.damping) : nil)
    }
  }

  /// What became of a weight.
  package struct Solution {
    package var weight: Matrix
    package var mask: SparsityMask
    /// tr(E·H·Eᵀ) and tr(W·H·Wᵀ), with the damped H.
    package var loss: Double
    package var norm: Double

    package var relativeLoss: Double { norm > 0 ? loss / norm : 0 }
  }

  /// Removes weights and corrects the ones still to come.
  ///
  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - mask: what to remove; `nil` to choose.
  ///   - sparsity: of every block of `blockSize` columns, among all outputs, as in the paper. A pattern has its own.
  package func prune(
    _ weight: Matrix, mask given: SparsityMask? = nil, pattern: SparsityPattern, sparsity: Double, blockSize: Int = 128
  ) -> Solution {
    let (rows, columns, order) = (weight.rows, weight.columns, factorization.order)
    precondition(columns == order.count, "the weight has \(columns) inputs, the Hessian \(order.count)")
    var (choosing, width) = ((pruned: Int, group: Int)?.none, blockSize)
    if given == nil, case .grouped(let kept, let group) = pattern {
      precondition(columns % group == 0, "groups of \(group) do not fill rows of \(columns)")
      (choosing, width) = ((group - kept, group), max(group, blockSize / group * group))
    }
    let height = 64
    var strips = Parallel.map((rows + height - 1) / height) { index in
      SparseGPTStrip(weight, rows: index * height..<min((index + 1) * height, rows), order: order, mask: given)
    }
    let factor = factorization.factor
    for start in stride(from: 0, to: columns, by: width) {
      let block = start..<min(start + width, columns)
      Self.each(&strips) { $0.correct(block, factor) }
      if given == nil, choosing == nil {
        // All outputs compete, so all have to have come this far.
        let pivots = pivots
        let scores = Matrix(stacking: Parallel.map(strips.count) { [strips] in strips[$0].scores(block, factor, pivots) })
        let mask = SparsityMask(scores: scores, pattern: .unstructured, sparsity: sparsity, comparing: .layer)
        for index in strips.indices { strips[index].take(mask, block) }
      }
      Self.each(&strips) { [pivots, choosing] in $0.prune(block, factor, pivots: pivots, choosing: choosing) }
    }
    let losses = Parallel.map(strips.count) { [strips] in strips[$0].loss(factor) }
    var result = Matrix(rows: rows, columns: columns)
    var isPruned = [Bool](repeating: false, count: rows * columns)
    result.withUnsafeMutableElements { out in
      isPruned.withUnsafeMutableBufferPointer { flags in
        nonisolated(unsafe) let (out, flags) = (out, flags)
        Parallel.forEach(strips.count) { [strips] in strips[$0].store(order, weight: out, mask: flags.baseAddress!) }
      }
    }
    return Solution(
      weight: result, mask: SparsityMask(rows: rows, columns: columns, isPruned: isPruned),
      loss: losses.reduce(0) { $0 + $1.error }, norm: losses.reduce(0) { $0 + $1.norm })
  }

  /// Moves the weights kept to their least squares.
  ///
  /// - Parameter target: what the weight was to be.
  package func refit(_ solution: inout Solution, toward target: Matrix) {
    guard let kept else { preconditionFailure("the solver was prepared without the Hessian") }
    let better = kept.solve(solution.weight, mask: solution.mask, toward: target)
    // In single precision a solve that is already at the optimum may end beside it.
    if better.loss < solution.loss { (solution.weight, solution.loss) = better }
  }

  private static func each(_ strips: inout [SparseGPTStrip], _ body: @Sendable (inout SparseGPTStrip) -> Void) {
    strips.withUnsafeMutableBufferPointer { buffer in
      nonisolated(unsafe) let buffer = buffer
      Parallel.forEach(buffer.count) { body(&buffer[$0]) }
    }
  }
}
