public import Tensors

/// A decoder block with its weights expanded: the only thing that runs.
///
/// It goes through the steps of the block's program and can stop before the linears of any input group, so that calibration may change their
/// weights and go on from there instead of starting over.
public struct PreparedBlock: Sendable {
  package let description: BlockDescription
  /// The block's name in the whole model; for messages.
  let name: String
  package let program: BlockProgram
  /// The step before which each stop is.
  private let stops: [Int]
  /// What no step needs any more, once a step is done.
  let spent: [[BlockValue]]
  let norms: [String: [Float]]
  let normBiases: [String: [Float]]
  let weights: [LinearName: Matrix]
  private let biases: [LinearName: [Float]]
  /// What is added to scores where experts are chosen by them.
  let correction: [Float]?
  /// By expert, what the weights of those that are chosen are multiplied by.
  let expertScales: [Float]?
  /// What the residual stream is multiplied by in the end, where the block has a number for it.
  let streamScale: Float?
  /// Where the feed-forward layer's activation has numbers of its own.
  let xielu: XIELU?
  let inputQuantizations: [LinearName: InputQuantization]
  /// In the order of the block's.
  package let mixers: [any PreparedMixer]

  /// Expands the weights that the given groups need.
  ///
  /// - Parameters:
  ///   - stages: groups to be computed, by index; `nil` for the whole block.
  ///   - others: further groups to be computed.
  ///   - positions: the longest sequence that will be run.
  public init(_ block: Block, stages: Range<Int>? = nil, and others: Range<Int> = 0..<0, positions: Int) {
    self.init(block, stages: stages, and: others, longest: positions, horizon: nil)
  }

  private init(_ block: Block, stages: Range<Int>?, and others: Range<Int>, longest: Int, horizon: Int?) {
    let description = block.description
    program = description.program
    let groups = program.inputGroups
    let needed = Set((groups[stages ?? groups.indices] + groups[others]).flatMap(\.linears))
    self.description = description
    name = block.name
    stops = program.stops
    spent = program.spent
    norms = block.norms.weights
    normBiases = block.norms.biases
    weights = Dictionary(uniqueKeysWithValues: needed.map { ($0, block[$0].weight.dense()) })
    biases = Dictionary(uniqueKeysWithValues: needed.compactMap { name in block[name].bias.map { (name, $0) } })
    inputQuantizations = Dictionary(
      uniqueKeysWithValues: needed.compactMap { name in block[name].inputQuantization.map { (name, $0) } })
    correction = description.feedForward?.mixture?.correction.flatMap { block.parameters[$0]?.floats() }
    expertScales = description.feedForward?.mixture?.expertScale.flatMap { block.parameters[$0]?.floats() }
    streamScale = description.streamScale.flatMap { block.parameters[$0]?.floats().first }
    let activation = description.feedForward?.activation.parameters ?? []
    let numbers = activation.compactMap { block.parameters[$0.name]?.floats().first }
    xielu = activation.isEmpty ? nil : XIELU(numbers)
    let parts = MixerParts(
      block: block.name, norm: description.norm, norms: block.norms.weights, normBiases: block.norms.biases,
      parameters: block.parameters.mapValues { $0.floats() }, cache: block.cache, longest: longest, horizon: horizon)
    mixers = description.mixers.map { $0.prepared(parts) }
  }

  /// Expands all weights for a run through caches.
  ///
  /// - Parameters:
  ///   - longest: the longest sequence that will be run.
  ///   - horizon: positions beyond it that will be asked for.
  package init(_ block: Block, longest: Int, horizon: Int) {
    self.init(block, stages: nil, and: 0..<0, longest: longest, horizon: horizon)
  }

  /// The outputs of linears that read the same input, which is quantized once for all that agree on how.
  private func apply(_ names: [LinearName], to input: Matrix) -> [Matrix] {
    var quantized: [InputQuantization: Matrix] = [:]
    return names.map { name in
      guard let weight = weights[name] else { preconditionFailure("\(name) was not prepared") }
      guard input.rows > 0 else { return Matrix(rows: 0, columns: weight.rows) }
      var seen = input
      if let quantization = inputQuantizations[name] {
        seen = quantized[quantization] ?? quantization.rounded(input)
        quantized[quantization] = seen
      }
      var output = seen.times(transposed: weight)
      if let bias = biases[name] { output.add(row: bias) }
      return output
    }
  }

  private func normalize(_ states: Matrix, by name: String) -> Matrix {
    description.norm(named: name).apply(states, weight: norms[name]!, bias: normBiases[name])
  }

  /// The state before the first group.
  ///
  /// - Throws: `NonFiniteActivation` where the first norm overflows.
  public func start(_ hidden: Matrix) throws(NonFiniteActivation) -> BlockState { try resume(stage: 0, [.stream: hidden]) }

  /// The state before group `stage`, taken up again from what was kept of it.
  ///
  /// - Parameter values: what `BlockProgram.kept(at:)` names.
  /// - Throws: `NonFiniteActivation` where the norm before the group overflows.
  package func resume(stage: Int, _ values: [BlockValue: Matrix]) throws(NonFiniteActivation) -> BlockState {
    var state = BlockState(stage: stage, values: values, reading: program.reading(atStop: stops[stage]))
    if state.input == nil {
      let norm = program.normBefore(stops[stage])
      guard let norm, case .norm(let norm, let from, let into) = program.steps[norm], let stream = state.values[from] else {
        preconditionFailure("the input of group \(stage) is needed")
      }
      state.values[into] = normalize(stream, by: norm)
      guard state.isFinite else { throw NonFiniteActivation(block: name, layer: norm) }
    }
    return state
  }

  /// Computes one group and what follows it, up to the next group's input.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func advance(_ state: inout BlockState) throws(NonFiniteActivation) { try advance(&state, mixing: mix) }

  /// The same with the mixers run elsewhere, as a run through caches does.
  ///
  /// - Parameter mix: from what a mixer, by its place, reads to what it makes.
  package func advance(
    _ state: inout BlockState, mixing mix: (Int, [Matrix]) throws(NonFiniteActivation) -> Matrix
  ) throws(NonFiniteActivation) {
    let (stage, input, routing) = (state.stage, state.input, state.routing)
    try compute(&state, mixing: mix)
    // Whatever is not finite reaches the next group's input or the residual stream, so only these are looked at.
    guard state.isFinite else { throw origin(of: state, behind: stage, input ?? state.residual, routing) }
  }

  private func compute<Failure: Error>(
    _ state: inout BlockState, mixing mix: (Int, [Matrix]) throws(Failure) -> Matrix
  ) throws(Failure) {
    guard state.reading != nil else { preconditionFailure("the block is done") }
    let start = stops[state.stage]
    let end = state.stage + 1 < stops.count ? stops[state.stage + 1] : program.steps.count
    for index in start..<end {
      try perform(program.steps[index], on: &state, mixing: mix)
      for value in spent[index] { state.values[value] = nil }
    }
    state.stage += 1
    enter(&state)
  }

  /// Sets what the group at hand reads.
  private func enter(_ state: inout BlockState) {
    guard state.stage < stops.count else {
      (state.reading, state.expert, state.routing) = (nil, nil, nil)
      return
    }
    state.reading = program.reading(atStop: stops[state.stage])
    state.expert = program.expert(atStop: stops[state.stage])
  }

  func perform<Failure: Error>(
    _ step: BlockStep, on state: inout BlockState, mixing mix: (Int, [Matrix]) throws(Failure) -> Matrix
  ) throws(Failure) {
    func value(_ value: BlockValue) -> Matrix {
      guard let matrix = state.values[value] else { preconditionFailure("\(value) is needed and was not kept") }
      return matrix
    }
    switch step {
    case .norm(let name, let from, let into): state.values[into] = normalize(value(from), by: name)
    case .linears(let names, let from, let into):
      for (made, output) in zip(into, apply(names, to: value(from))) { state.values[made] = output }
    case .mix(let place, let from, let into): state.values[into] = try mix(place, from.map { value($0) })
    case .activate(let activation, let from, let gated, let into):
      var result = value(from)
      // Nobody else holds it, so that it is changed in place.
      if from != .stream { state.values[from] = nil }
      if case .xielu = activation { xielu!.apply(to: &result) } else { result.activate(activation, gating: gated.map { value($0) }) }
      state.values[into] = result
    case .split(let from, let sizes, let into):
      let whole = value(from)
      var start = 0
      for (made, size) in zip(into, sizes) {
        state.values[made] = whole.columns(in: [start..<start + size])
        start += size
      }
    case .route(let scores, let gate, _): state.routing = route(value(scores), gate.map { value($0) }, state.values[program.routed!]!)
    case .gather(let from, _, let expert, let into): state.values[into] = state.routing!.seen(by: expert, of: value(from))
    case .scatter(let from, _, let expert, let onto):
      let (route, output, rows) = (state.routing!.routes[expert], value(from), state.residual.rows)
      state.values[onto, default: Matrix(rows: rows, columns: description.hiddenSize)]
        .add(output, atRows: route.tokens, weighedBy: route.weights)
    case .add(let from, let onto, let scale):
      let added = scaled(value(from), by: scale)
      // Where one mixer's part is asked for alone, the others have added nothing.
      if state.values[onto]?.add(added) == nil { state.values[onto] = added }
    case .scale(let scaled, _): state.values[scaled] = self.scaled(value(scaled), by: streamScale!)
    }
  }

  private func scaled(_ output: Matrix, by scale: Float) -> Matrix {
    guard scale != 1 else { return output }
    return Matrix(rows: output.rows, columns: output.columns, elements: output.elements.map { $0 * scale })
  }

  private func mix(_ place: Int, _ inputs: [Matrix]) -> Matrix { mixers[place].mix(inputs) }

  /// The softmax attention among the mixers; `nil` where there is none.
  package var attention: PreparedAttention? { mixers.lazy.compactMap { $0 as? PreparedAttention }.first }

  /// The whole block: hidden states in, hidden states out, [tokens × hidden size] both.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func forward(_ hidden: Matrix) throws(NonFiniteActivation) -> Matrix {
    var state = try start(hidden)
    while state.input != nil { try advance(&state) }
    return state.residual
  }
}

// MARK: - Mixtures

extension PreparedBlock {
  /// The state before another group, straight from the one at hand: steps that its input does not depend on are left out, so that an expert
  /// is reached from the router, and what experts between would add is not there.
  ///
  /// - Precondition: the groups between that its input depends on are prepared.
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  package func skip(to stage: Int, from state: BlockState) throws(NonFiniteActivation) -> BlockState {
    var state = state
    for index in program.needed(for: [program.reading(atStop: stops[stage])], from: stops[state.stage], to: stops[stage]) {
      // Who sees what may be known already.
      if case .route = program.steps[index], state.routing != nil { continue }
      perform(program.steps[index], on: &state, mixing: mix)
    }
    let start = state.stage
    state.stage = stage
    enter(&state)
    guard state.isFinite else { throw origin(of: state, behind: start, state.input ?? state.residual, state.routing) }
    return state
  }

  /// What the layer around a group, or the expert, would add to the residual stream for inputs of that group alone; finite or not, for what
  /// is tried here may overflow without anybody meaning to keep it.
  ///
  /// - Precondition: the groups `BlockProgram.rest(fromStop:)` names are prepared.
  package func contribution(of input: Matrix, from stage: Int) -> Matrix {
    let reading = program.reading(atStop: stops[stage])
    let none = Matrix(rows: input.rows, columns: description.hiddenSize)
    var state = BlockState(stage: stage, values: [.stream: none], reading: reading)
    state.values[reading] = input
    let steps = program.consequences(ofStop: stops[stage])
    for index in steps.dropLast() { perform(program.steps[index], on: &state, mixing: mix) }
    guard let last = steps.last else { return none }
    switch program.steps[last] {
    case .add(let from, _, let scale): return scaled(state.values[from]!, by: scale)
    case .scatter(let from, _, _, _): return scaled(state.values[from]!, by: description.residualScale)
    default: preconditionFailure("a layer ends where something is added")
    }
  }

  private func route(_ scores: Matrix, _ gate: Matrix?, _ input: Matrix) -> MixtureRouting {
    guard let mixture = description.feedForward?.mixture else { preconditionFailure("the block has no router") }
    var routes = mixture.routes(scores: scores, correction: correction, scales: expertScales)
    if mixture.shared != nil, mixture.ownNorms == nil {
      let weights = gate?.elements.map { 1 / (1 + exponential(-$0)) } ?? Array(repeating: 1, count: scores.rows)
      routes.append(.init(tokens: Array(0..<scores.rows), weights: weights))
    }
    return MixtureRouting(input: input, routes: routes)
  }
}

// MARK: - Where infinities come from

extension BlockState {
  /// Whether what the next group reads, or what the block has made in the end, is finite.
  fileprivate var isFinite: Bool { (input ?? residual).isFinite }
}

extension PreparedBlock {
  /// Keys and values as a cache would store them, for the input of the projections.
  ///
  /// - Precondition: the block has attention.
  /// - Throws: `NonFiniteActivation` where one of them is not finite.
  package func cachedStates(_ input: Matrix) throws(NonFiniteActivation) -> (keys: Matrix, values: Matrix) {
    guard let attention else { preconditionFailure("\(name) keeps no keys and values") }
    return try attention.cachedStates(apply(attention.description.projections.linears, to: input))
  }

  /// What put out the first number that is not finite, found by computing the group at hand once more; for experts, whose sum is looked at
  /// when all have spoken, all of them.
  private func origin(of state: BlockState, behind stage: Int, _ input: Matrix, _ routing: MixtureRouting?) -> NonFiniteActivation {
    let layer: String
    if let linear = overflowing(program.inputGroups[stage], input) {
      layer = linear
    } else if let routing = state.routing ?? routing, let expert = overflowingExpert(routing) {
      layer = expert
    } else if !state.residual.isFinite {
      layer = "the residual stream"
    } else {
      layer = state.reading.map { program.maker(of: $0, description.mixers) } ?? "the residual stream"
    }
    return NonFiniteActivation(block: name, layer: layer)
  }

  private func overflowingExpert(_ routing: MixtureRouting) -> String? {
    guard let feedForward = description.feedForward else { return nil }
    for index in routing.routes.indices {
      let linears = feedForward.expert(index)
      // Experts whose weights were not asked for have not been computed either.
      guard (linears.readers + [linears.down]).allSatisfy({ weights[$0] != nil }) else { continue }
      let seen = routing.seen(by: index, of: routing.input)
      if let reader = overflowing(InputGroup(linears.readers), seen) { return reader }
      if !contribution(of: seen, from: program.inputGroups.firstIndex(of: InputGroup(linears.readers))!).isFinite {
        return linears.down.rawValue
      }
    }
    return nil
  }

  private func overflowing(_ group: InputGroup, _ input: Matrix) -> String? {
    group.linears.first { weights[$0] != nil && !apply([$0], to: input)[0].isFinite }?.rawValue
  }
}
