import Passes
import Quantization
import Tensors

/// What the calibration data says about the inputs of a group.
struct FactorInputs {
  enum Metric {
    case identity
    case diagonal([Double])
  }

  /// Of the inputs as they are, damped.
  let moment: DoubleMatrix
  /// What the factors are fitted under.
  let metric: DoubleMatrix
  private let drift: InputDrift?
  private let strength: Double
  /// Whether no calibration token says anything of them: all inputs count alike then, which is plain SVD.
  let isUnreached: Bool

  init(_ hessian: Hessian, damping: Double, metric: Metric?, drift: InputDrift? = nil, strength: Double = 0) {
    isUnreached = hessian.tokens == 0
    moment = DoubleMatrix(isUnreached ? Hessian.identity(features: hessian.matrix.size).matrix : hessian.matrix).damped(by: damping)
    switch isUnreached ? .identity : metric {
    case nil: self.metric = moment
    case .identity: self.metric = DoubleMatrix(diagonal: [Double](repeating: 1, count: hessian.matrix.size))
    case .diagonal(let values): self.metric = DoubleMatrix(diagonal: values)
    }
    self.drift = drift
    self.strength = strength
  }

  /// The weights whose outputs over these inputs come nearest to the original ones over the original inputs, as far as asked.
  func corrected(_ weights: [DoubleMatrix]) -> [DoubleMatrix] {
    guard let drift, case .success(let solver) = GPTQSolver.prepare(drift.hessian, groupSize: 1, order: .natural, damping: 0.01) else {
      return weights
    }
    return weights.map { weight in
      let single = Matrix(rows: weight.rows, columns: weight.columns, elements: weight.elements.map { Float($0) })
      return DoubleMatrix(solver.corrected(single, for: drift, by: strength))
    }
  }
}
