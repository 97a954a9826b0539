package import Tensors

/// One sequence's way through a block, with all that the way back needs: what every step read.
package struct BlockRun: Sendable {
  /// By step; `nil` for what is no matrix or begins with zeros.
  let reads: [[Matrix?]]
  let routing: MixtureRouting?
  /// The residual stream behind the block, [tokens × hidden size].
  package let output: Matrix
}

extension PreparedBlock {
  /// The whole block, as `forward`, keeping what the way back needs.
  ///
  /// - Throws: `NonFiniteActivation` naming the block.
  package func record(_ hidden: Matrix) throws(NonFiniteActivation) -> BlockRun {
    var state = BlockState(stage: 0, values: [.stream: hidden], reading: nil)
    var reads: [[Matrix?]] = []
    reads.reserveCapacity(program.steps.count)
    for (index, step) in program.steps.enumerated() {
      reads.append(step.reads.map { state.values[$0] })
      perform(step, on: &state) { place, inputs in mixers[place].mix(inputs) }
      for value in spent[index] { state.values[value] = nil }
    }
    guard state.residual.isFinite else { throw NonFiniteActivation(block: name, layer: "the residual stream") }
    return BlockRun(reads: reads, routing: state.routing, output: state.residual)
  }

  /// The way back: from the gradient of what left the block to that of what entered it.
  ///
  /// Rounding of inputs, and of keys and values for a cache, is passed straight through (Bengio et al. 2013).
  ///
  /// - Parameters:
  ///   - gradient: of the residual stream behind the block, [tokens × hidden size].
  ///   - pull: takes what pulls on the parameters.
  /// - Precondition: all mixers have a way back (`BlockDescription.gradientObstacle`).
  package func pullback(_ run: BlockRun, _ gradient: Matrix, into pull: inout BlockPull) -> Matrix {
    var gradients = ValueGradients()
    gradients[.stream] = gradient
    // By expert, of what it counts for each of its tokens.
    var counts = run.routing?.routes.map { [Float](repeating: 0, count: $0.tokens.count) } ?? []
    for (index, step) in program.steps.enumerated().reversed() {
      let reads = run.reads[index]
      switch step {
      case .norm(let name, let from, let into):
        guard let above = gradients.take(into) else { continue }
        let (below, weight, bias) = description.norm(named: name).pullback(reads[0]!, weight: norms[name]!, gradient: above)
        pull.add(norm: name, weight, bias: normBiases[name] == nil ? nil : bias)
        gradients.add(below, to: from)
      case .linears(let names, let from, let into):
        for (name, made) in zip(names, into) {
          guard let above = gradients.take(made), above.rows > 0 else { continue }
          pull.linears[name] = (inputQuantizations[name].map { $0.rounded(reads[0]!) } ?? reads[0]!, above)
          gradients.add(above.times(weights[name]!), to: from)
        }
      case .mix(let place, let from, let into):
        guard let above = gradients.take(into) else { continue }
        guard let mixer = mixers[place] as? any DifferentiableMixer else { preconditionFailure("\(name): a mixer has no way back") }
        for (value, below) in zip(from, mixer.pullback(reads.map { $0! }, above, into: &pull)) { gradients.add(below, to: value) }
      case .activate(let activation, let from, let gated, let into):
        guard let above = gradients.take(into) else { continue }
        if case .xielu = activation {
          let (below, learned) = xielu!.pullback(reads[0]!, gradient: above)
          for (parameter, gradient) in zip(activation.parameters, learned) { pull.add(parameter: parameter.name, [gradient]) }
          gradients.add(below, to: from)
          continue
        }
        let (below, other) = activation.pullback(reads[0]!, gating: gated == nil ? nil : reads[1]!, gradient: above)
        gradients.add(below, to: from)
        if let gated { gradients.add(other!, to: gated) }
      case .split(let from, let sizes, let into):
        let parts = zip(into, sizes).map { gradients.take($0) ?? Matrix(rows: reads[0]!.rows, columns: $1) }
        gradients.add(Matrix(joining: parts), to: from)
      case .route(let scores, let gate, _):
        let (below, other) = routePullback(reads[0]!, gate: gate == nil ? nil : reads[1]!, run.routing!, counts, into: &pull)
        gradients.add(below, to: scores)
        if let gate { gradients.add(other!, to: gate) }
      case .gather(let from, _, let expert, let into):
        guard let above = gradients.take(into), above.rows > 0 else { continue }
        let route = run.routing!.routes[expert]
        if route.inputWeights != nil { counts[expert] = above.rowProducts(with: reads[0]!.rows(at: route.tokens)) }
        var below = Matrix(rows: reads[0]!.rows, columns: above.columns)
        below.add(above, atRows: route.tokens, weighedBy: route.inputWeights ?? Array(repeating: 1, count: route.tokens.count))
        gradients.add(below, to: from)
      case .scatter(let from, _, let expert, let onto):
        // What the sum was before this expert has the same gradient, so that it stays.
        guard let above = gradients[onto] else { continue }
        let route = run.routing!.routes[expert]
        guard !route.tokens.isEmpty else { continue }
        var below = above.rows(at: route.tokens)
        if route.inputWeights == nil { counts[expert] = below.rowProducts(with: reads[0]!) }
        below.scaleRows(by: route.weights)
        gradients.add(below, to: from)
      case .add(let from, let onto, let scale):
        guard let above = gradients[onto] else { continue }
        gradients.add(scale == 1 ? above : above.scaled(by: scale), to: from)
      // The number itself does not move.
      case .scale(let scaled, _): gradients[scaled] = gradients[scaled]?.scaled(by: streamScale!)
      }
    }
    return gradients.take(.stream) ?? Matrix(rows: gradient.rows, columns: gradient.columns)
  }

  private func routePullback(
    _ scores: Matrix, gate: Matrix?, _ routing: MixtureRouting, _ counts: [[Float]], into pull: inout BlockPull
  ) -> (scores: Matrix, gate: Matrix?) {
    guard let mixture = description.feedForward?.mixture else { preconditionFailure("the block has no router") }
    var counts = counts
    if let name = mixture.expertScale, let scales = expertScales {
      let unscaled = mixture.routes(scores: scores, correction: correction)
      pull.add(parameter: name, zip(counts, unscaled).map { zip($0, $1.weights).reduce(0) { $0 + $1.0 * $1.1 } })
      for (expert, scale) in scales.enumerated() { counts[expert] = counts[expert].map { $0 * scale } }
    }
    let below = mixture.pullback(scores: scores, routes: Array(routing.routes.prefix(mixture.experts)), gradients: counts)
    guard gate != nil, let shared = routing.routes.last else { return (below, nil) }
    return (
      below,
      Matrix(
        rows: scores.rows, columns: 1, elements: zip(shared.weights, counts[counts.count - 1]).map { $1 * $0 * (1 - $0) })
    )
  }
}

/// Gradients of the values that steps make, while the way back has not reached their makers.
private struct ValueGradients {
  private var matrices: [BlockValue: Matrix] = [:]

  subscript(value: BlockValue) -> Matrix? {
    get { matrices[value] }
    set { matrices[value] = newValue }
  }

  mutating func take(_ value: BlockValue) -> Matrix? { matrices.removeValue(forKey: value) }

  mutating func add(_ gradient: Matrix, to value: BlockValue) {
    if matrices[value]?.add(gradient) == nil { matrices[value] = gradient }
  }
}

extension BlockDescription {
  /// Why the way back through the block cannot be gone; `nil` where it can.
  package var gradientObstacle: String? {
    for mixer in mixers { if let obstacle = mixer.gradientObstacle { return obstacle } }
    return nil
  }
}
