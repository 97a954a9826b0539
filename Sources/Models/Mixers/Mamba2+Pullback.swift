internal import Foundation
import Tensors

extension PreparedMamba2: DifferentiableMixer {
  /// The way back, from the gated norm to the linear's output.
  ///
  /// With y = attention(C, B, x ⊙ Δ; −exp(A_log) · Δ) + D · x, where u is the gradient of x ⊙ Δ and dg that of the decays, head by head:
  /// dD = Σ dy · x, dx = D · dy + Δ · u, dΔ = Σ u · x − exp(A_log) · dg, dA_log = Σ dg · g for g = −exp(A_log) · Δ. Of the steps s before
  /// softplus, ds = dΔ · softplus'(s) between the bounds of Δ and 0 beyond, and d dt_bias = Σ ds.
  func pullback(_ inputs: [Matrix], _ gradient: Matrix, into pull: inout BlockPull) -> [Matrix] {
    let (module, size, heads) = (description.module, description.headSize, description.heads)
    let made = separated(inputs[0])
    var past = convolution.makePast()
    let convolved = convolution.apply(made.mixed, past: &past)
    let scan = scanned(convolved, steps: made.steps)
    let read = LinearAttention.Inputs(
      queries: scan.readers, keys: scan.writers, values: scan.updates, decays: scan.decays, strengths: nil)
    var (states, tape) = attention.record(read)
    states.add(scan.skipped)
    var (gates, above) = pullGates(made.gates, states, gradient, into: &pull)

    let pulled = attention.pullback(read, tape, above)
    let passed = Matrix(rows: above.rows, columns: heads, elements: above.headProducts(with: scan.values, size: size))
    pull.add(parameter: module + ".D", passed.columnSums())
    var rateGradient = pulled.decays
    rateGradient.multiply(by: scan.decays)
    pull.add(parameter: module + ".A_log", rateGradient.columnSums())

    let bounds = description.steps
    let counted = pulled.values.headProducts(with: scan.values, size: size)
    var steps = Matrix(rows: above.rows, columns: heads) { out in
      for (index, step) in made.steps.elements.enumerated() {
        let isInside = bounds.contains(softplus(step))
        out[index] = isInside ? (counted[index] - rates[index % heads] * pulled.decays.elements[index]) * softplusSlope(step) : 0
      }
    }
    pull.add(parameter: module + ".dt_bias", steps.columnSums())

    above = above.headsScaled(by: Array(repeating: skip, count: above.rows).flatMap { $0 }, size: size)
    above.add(pulled.values.headsScaled(by: scan.times, size: size))
    let activated = Activation.silu.pullback(
      convolved, gating: nil, gradient: Matrix(joining: [above, pulled.keys, pulled.queries]))
    var mixed = convolution.pullback(made.mixed, activated.input)
    pull.add(parameter: module + ".conv1d.weight", mixed.kernel)
    if let bias = mixed.bias { pull.add(parameter: module + ".conv1d.bias", bias) }

    let factors = description.multipliers
    if factors != Mamba2.Multipliers() { mixed.input.scaleColumns(by: convolvedFactors) }
    if factors.gates != 1 { gates.scaleColumns(by: Array(repeating: factors.gates, count: gates.columns)) }
    if factors.steps != 1 { steps.scaleColumns(by: Array(repeating: factors.steps, count: heads)) }
    return [Matrix(joining: [gates, mixed.input, steps])]
  }

  /// The way back through gates and norm: to the gates, and to what the recurrence and its bypass make.
  private func pullGates(
    _ gates: Matrix, _ states: Matrix, _ gradient: Matrix, into pull: inout BlockPull
  ) -> (gates: Matrix, states: Matrix) {
    guard let norm else {
      let (below, other) = Activation.silu.pullback(gates, gating: states, gradient: gradient)
      return (below, other!)
    }
    func throughNorm(_ rows: Matrix, _ gradient: Matrix) -> Matrix {
      let (below, weight) = rows.stretchNormPullback(
        width: description.innerSize / description.groups, weight: norm, epsilon: description.epsilon, gradient: gradient)
      pull.add(parameter: description.module + ".norm.weight", weight)
      return below
    }
    if description.norm == .beforeGate {
      let (below, other) = Activation.silu.pullback(gates, gating: normalized(states), gradient: gradient)
      return (below, throughNorm(states, other!))
    }
    var open = gates
    open.activate(.silu, gating: states)
    let (below, other) = Activation.silu.pullback(gates, gating: states, gradient: throughNorm(open, gradient))
    return (below, other!)
  }
}
