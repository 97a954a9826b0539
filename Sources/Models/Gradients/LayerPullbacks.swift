internal import Foundation
package import Tensors

extension NormDescription {
  /// The way back through `apply`.
  ///
  /// With r = 1 / √(mean(x²) + ε): dx = r · w ⊙ dy − x · r³ / d · Σ w dy x and dw = Σ dy ⊙ x · r; layer norms see x less its mean, and their
  /// dx less its own.
  ///
  /// - Parameters:
  ///   - rows: what was normalised, [tokens × features].
  ///   - gradient: of what came out.
  package func pullback(_ rows: Matrix, weight: [Float], gradient: Matrix) -> (rows: Matrix, weight: [Float], bias: [Float]) {
    guard gain == 1 else {
      var plain = self
      plain.gain = 1
      let (below, pulled, _) = plain.pullback(rows, weight: weight, gradient: gradient.scaled(by: gain))
      return (below, pulled, gradient.columnSums())
    }
    var weightGradient = [Float](repeating: 0, count: weight.count)
    let below = Matrix(rows: rows.rows, columns: rows.columns) { out in
      rows.withUnsafeElements { x in
        gradient.withUnsafeElements { dy in
          for row in stride(from: 0, to: rows.rows * rows.columns, by: rows.columns) {
            let to = out.baseAddress! + row
            switch kind {
            case .rootMeanSquare:
              Kernel.rmsNormPullback(
                x + row, weight: weight, epsilon: epsilon, gradient: dy + row, into: to, weightGradient: &weightGradient,
                count: rows.columns)
            case .layer:
              Kernel.layerNormPullback(
                x + row, weight: weight, epsilon: epsilon, gradient: dy + row, into: to, weightGradient: &weightGradient,
                count: rows.columns)
            }
          }
        }
      }
    }
    return (below, weightGradient, gradient.columnSums())
  }
}

extension Activation {
  /// The way back through act(x) ⊙ gated: dx = dz ⊙ gated ⊙ act'(x), and of what is gated dz ⊙ act(x).
  ///
  /// - Parameters:
  ///   - input: x.
  ///   - gated: `nil` where nothing is gated.
  package func pullback(_ input: Matrix, gating gated: Matrix?, gradient: Matrix) -> (input: Matrix, gated: Matrix?) {
    if case .clampedSwiglu(let gain, let limit) = self {
      return clampedPullback(input, gated ?? Matrix(rows: input.rows, columns: input.columns), gradient, gain: gain, limit: limit)
    }
    var (value, slope) = (Matrix(rows: input.rows, columns: input.columns), Matrix(rows: input.rows, columns: input.columns))
    let count = input.rows * input.columns
    value.withUnsafeMutableElements { value in
      slope.withUnsafeMutableElements { slope in input.withUnsafeElements { slopes($0, value, slope, count) } }
    }
    slope.multiply(by: gradient)
    guard let gated else { return (slope, nil) }
    slope.multiply(by: gated)
    value.multiply(by: gradient)
    return (slope, value)
  }

  /// act(x) and act'(x).
  private func slopes(
    _ x: UnsafePointer<Float>, _ value: UnsafeMutablePointer<Float>, _ slope: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    switch self {
    case .silu: Kernel.siluSlope(x, value: value, slope: slope, count: count)
    case .geluTanh: Kernel.geluTanhSlope(x, value: value, slope: slope, count: count)
    case .gelu: Kernel.geluSlope(x, value: value, slope: slope, count: count)
    case .scaledSilu(let factor):
      let scaled = [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
        for index in 0..<count { buffer[index] = factor * x[index] }
        initialized = count
      }
      Kernel.siluSlope(scaled, value: value, slope: slope, count: count)
      for index in 0..<count { slope[index] *= factor }
    case .relu:
      for index in 0..<count {
        value[index] = max(x[index], 0)
        slope[index] = x[index] > 0 ? 1 : 0
      }
    case .reluSquared:
      for index in 0..<count {
        let positive = max(x[index], 0)
        value[index] = positive * positive
        slope[index] = 2 * positive
      }
    case .clampedSwiglu, .xielu: preconditionFailure("the activation has a way back of its own")
    }
  }

  /// Beyond a clamp nothing is passed on.
  private func clampedPullback(
    _ gate: Matrix, _ up: Matrix, _ gradient: Matrix, gain: Float, limit: Float
  ) -> (input: Matrix, gated: Matrix?) {
    var (gateGradient, upGradient) = (gradient, gradient)
    let count = gradient.rows * gradient.columns
    gateGradient.withUnsafeMutableElements { dgate in
      upGradient.withUnsafeMutableElements { dup in
        gate.withUnsafeElements { gate in
          up.withUnsafeElements { up in
            for index in 0..<count {
              let (g, u) = (min(gate[index], limit), max(-limit, min(up[index], limit)))
              let sigmoid = 1 / (1 + exp(-gain * g))
              dgate[index] = gate[index] > limit ? 0 : dgate[index] * (u + 1) * sigmoid * (1 + gain * g * (1 - sigmoid))
              dup[index] = abs(up[index]) > limit ? 0 : dup[index] * g * sigmoid
            }
          }
        }
      }
    }
    return (gateGradient, upGradient)
  }
}

extension MixtureDescription {
  /// The way back from what experts count to the router's scores; the choice itself has no gradient.
  ///
  /// - Parameters:
  ///   - scores: [tokens × experts].
  ///   - routes: of the experts that are chosen among.
  ///   - gradients: by expert, of what it counts for each of its tokens.
  func pullback(scores: Matrix, routes: [MixtureRouting.Route], gradients: [[Float]]) -> Matrix {
    var chosen = [[(expert: Int, gradient: Float)]](repeating: [], count: scores.rows)
    for (expert, route) in routes.enumerated() {
      for (place, token) in route.tokens.enumerated() { chosen[token].append((expert, gradients[expert][place] * weightScale)) }
    }
    var below = Matrix(rows: scores.rows, columns: scores.columns)
    for token in 0..<scores.rows {
      if case .sparseMixer(let tolerance) = scoring {
        let row = (0..<experts).map { scores[token, $0] }
        let found = sparsePullback(
          of: row, tolerance: tolerance, gradients: Dictionary(uniqueKeysWithValues: chosen[token].map { ($0.expert, $0.gradient) }))
        for expert in 0..<experts { below[token, expert] = found[expert] }
        continue
      }
      let (values, total) = weights(of: (0..<experts).map { scores[token, $0] })
      let shares = values.map { $0 / total }
      let sum = normalizesWeights ? chosen[token].reduce(0) { $0 + shares[$1.expert] } : 1
      // With respect to the shares: those that were chosen may be divided by their sum.
      let mean = normalizesWeights ? chosen[token].reduce(0) { $0 + shares[$1.expert] / sum * $1.gradient } : 0
      var shareGradients = [Float](repeating: 0, count: experts)
      for (expert, gradient) in chosen[token] { shareGradients[expert] = (gradient - mean) / sum }
      switch scoring {
      case .softmax:
        let inner = zip(shares, shareGradients).reduce(0) { $0 + $1.0 * $1.1 }
        for expert in 0..<experts { below[token, expert] = shares[expert] * (shareGradients[expert] - inner) }
      case .sigmoid:
        for expert in 0..<experts { below[token, expert] = shareGradients[expert] * shares[expert] * (1 - shares[expert]) }
      case .sparseMixer: break
      }
    }
    return below
  }
}
