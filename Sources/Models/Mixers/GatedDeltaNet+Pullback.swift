internal import Foundation
import Tensors

extension PreparedGatedDeltaNet: DifferentiableMixer {
  /// The way back, from the gates to the outputs of the linears.
  ///
  /// Of the decays g = −exp(A_log) · softplus(s) with s = a + dt_bias, head by head: da = −exp(A_log) · softplus'(s) · dg, dA_log = Σ dg · g
  /// and d dt_bias = Σ da; of the strengths, db = dβ · β · (1 − β).
  func pullback(_ inputs: [Matrix], _ gradient: Matrix, into pull: inout BlockPull) -> [Matrix] {
    let module = description.module
    let made = separated(inputs)
    var past = convolution.makePast()
    let mixed = convolution.apply(made.mixed, past: &past)
    let (queries, keys, values) = convolved(mixed)
    var (normalizedQueries, normalizedKeys) = (queries, keys)
    normalizedQueries.normalizeHeads(of: description.keySize, scale: queryScale)
    normalizedKeys.normalizeHeads(of: description.keySize, scale: 1)
    let (decays, strengths) = (decays(made.steps), open(made.strengths))
    let read = LinearAttention.Inputs(
      queries: normalizedQueries, keys: normalizedKeys, values: values, decays: decays, strengths: strengths)
    let (context, tape) = attention.record(read)

    let gated = Activation.silu.pullback(made.gates, gating: normalized(context), gradient: gradient)
    let above = context.stretchNormPullback(
      width: description.valueSize, weight: norm, epsilon: description.epsilon, gradient: gated.gated!)
    pull.add(parameter: module + ".norm.weight", above.weight)

    var pulled = attention.pullback(read, tape, above.rows)
    pulled.queries.pullNormalizedHeads(queries, of: description.keySize, scale: queryScale)
    pulled.keys.pullNormalizedHeads(keys, of: description.keySize, scale: 1)
    let activated = Activation.silu.pullback(
      mixed, gating: nil, gradient: Matrix(joining: [pulled.queries, pulled.keys, pulled.values]))
    let below = convolution.pullback(made.mixed, activated.input)
    pull.add(parameter: module + ".conv1d.weight", below.kernel)
    return joined(
      mixed: below.input, gates: gated.input, strengths: pullStrengths(strengths, pulled.strengths!),
      steps: pullSteps(made.steps, decays, pulled.decays, into: &pull), like: inputs)
  }

  private func pullStrengths(_ strengths: Matrix, _ gradient: Matrix) -> Matrix {
    var below = Matrix(rows: strengths.rows, columns: strengths.columns, elements: strengths.elements.map { $0 * (1 - $0) })
    below.multiply(by: gradient)
    return below
  }

  private func pullSteps(_ steps: Matrix, _ decays: Matrix, _ gradient: Matrix, into pull: inout BlockPull) -> Matrix {
    let heads = description.valueHeads
    var rateGradient = gradient
    rateGradient.multiply(by: decays)
    pull.add(parameter: description.module + ".A_log", rateGradient.columnSums())
    var below = Matrix(rows: steps.rows, columns: heads) { out in
      for (index, step) in steps.elements.enumerated() {
        out[index] = -rates[index % heads] * softplusSlope(step + timeBias[index % heads])
      }
    }
    below.multiply(by: gradient)
    pull.add(parameter: description.module + ".dt_bias", below.columnSums())
    return below
  }

  /// The way back through `separated`: gradients of what the linears put out.
  private func joined(mixed: Matrix, gates: Matrix, strengths: Matrix, steps: Matrix, like inputs: [Matrix]) -> [Matrix] {
    guard description.projections == .interleaved else { return [mixed, gates, strengths, steps] }
    let places = description.interleavedPlaces
    var (wide, narrow) = (Matrix(rows: mixed.rows, columns: inputs[0].columns), Matrix(rows: mixed.rows, columns: inputs[1].columns))
    wide.set(mixed, columns: places.mixed)
    wide.set(gates, columns: places.gates)
    narrow.set(strengths, columns: places.strengths)
    narrow.set(steps, columns: places.steps)
    return [wide, narrow]
  }
}

extension Matrix {
  /// The way back through `normalizeHeads`, in place: with r = 1 / √(Σ x² + 1e-6), dx = scale · r · (dy − x · r² · Σ x ⊙ dy).
  ///
  /// - Parameter states: x, which was normalised.
  fileprivate mutating func pullNormalizedHeads(_ states: Matrix, of size: Int, scale: Float) {
    let count = rows * columns / size
    withUnsafeMutableElements { gradient in
      states.withUnsafeElements { states in
        for head in 0..<count {
          let (x, dy) = (states + head * size, gradient + head * size)
          var (sum, product): (Float, Float) = (0, 0)
          for index in 0..<size {
            sum += x[index] * x[index]
            product += x[index] * dy[index]
          }
          let square = 1 / (sum + 1e-6)
          let (factor, along) = (scale * square.squareRoot(), product * square)
          for index in 0..<size { dy[index] = factor * (dy[index] - x[index] * along) }
        }
      }
    }
  }
}
