public import Tensors

/// A decoder block with its weights expanded: the only thing that runs.
///
/// The forward pass goes in stages, one per input group, so that calibration can stop before a group, change its weights and go on from
/// there instead of starting over.
public struct PreparedBlock: Sendable {
  package let description: BlockDescription
  /// The block's name in the whole model; for messages.
  private let name: String
  private let stages: [Stage]
  private let norms: [String: [Float]]
  private let normBiases: [String: [Float]]
  private let weights: [LinearName: Matrix]
  private let biases: [LinearName: [Float]]
  private let inputQuantizations: [LinearName: InputQuantization]
  private let cache: CacheQuantization?
  private let rotary: RotaryTables?
  /// For rows in any order, in runs through caches.
  private var placed: RotaryTable?

  /// Expands the weights that the given stages need.
  ///
  /// - Parameters:
  ///   - stages: groups to be computed, by index; `nil` for the whole block.
  ///   - others: further groups to be computed.
  ///   - positions: the longest sequence that will be run.
  /// - Precondition: `block` is a decoder block.
  public init(_ block: Block, stages: Range<Int>? = nil, and others: Range<Int> = 0..<0, positions: Int) {
    guard let description = block.description else { preconditionFailure("only decoder blocks run in stages") }
    let groups = block.inputGroups
    let needed = Set((groups[stages ?? groups.indices] + groups[others]).flatMap(\.linears))
    self.description = description
    name = block.name
    self.stages = description.stages
    norms = block.norms
    normBiases = block.normBiases
    weights = Dictionary(uniqueKeysWithValues: needed.map { ($0, block[$0].weight.dense()) })
    biases = Dictionary(uniqueKeysWithValues: needed.compactMap { name in block[name].bias.map { (name, $0) } })
    inputQuantizations = Dictionary(
      uniqueKeysWithValues: needed.compactMap { name in block[name].inputQuantization.map { (name, $0) } })
    cache = block.cache
    rotary = description.attention.rotary.map { RotaryTables($0, headSize: description.attention.headSize, positions: positions) }
  }

  /// Expands all weights for a run through caches.
  ///
  /// - Parameters:
  ///   - longest: the longest sequence that will be run.
  ///   - horizon: positions beyond it that will be asked for.
  package init(_ block: Block, longest: Int, horizon: Int) {
    self.init(block, positions: longest)
    placed = description.attention.rotary.map {
      RotaryTable($0, headSize: description.attention.headSize, positions: longest + horizon, length: longest)
    }
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

  private func apply(_ name: LinearName, _ input: Matrix) -> Matrix { apply([name], to: input)[0] }

  private func normalize(_ states: Matrix, by name: String?) -> Matrix {
    guard let name else { return states }
    return description.norm.apply(states, weight: norms[name]!, bias: normBiases[name])
  }

  /// The state before the first group.
  ///
  /// - Throws: `NonFiniteActivation` where the first norm overflows.
  public func start(_ hidden: Matrix) throws(NonFiniteActivation) -> BlockState {
    try resume(stage: 0, residual: hidden, input: nil)
  }

  /// The state before group `stage`, taken up again from what was kept of it.
  ///
  /// - Parameters:
  ///   - input: the group's input; may be left out where it follows from the residual stream.
  ///   - branch: what was kept of a parallel block's attention.
  /// - Throws: `NonFiniteActivation` where the norm before the group overflows.
  package func resume(
    stage: Int, residual: Matrix, input: Matrix?, branch: Matrix? = nil
  ) throws(NonFiniteActivation) -> BlockState {
    var state = BlockState(stage: stage, residual: residual, input: input, branch: branch)
    if input == nil {
      precondition(stages[stage] != .attentionOutput && stages[stage] != .feedForwardOutput, "the input of group \(stage) is needed")
      enter(&state)
      guard state.isFinite else { throw NonFiniteActivation(block: name, layer: normBefore(stage) ?? "the residual stream") }
    }
    return state
  }

  /// Computes one group and what follows it, up to the next group's input.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func advance(_ state: inout BlockState) throws(NonFiniteActivation) {
    try advance(&state, attending: attention)
  }

  /// The same with attention computed elsewhere, as a run through a cache does.
  ///
  /// - Parameter attention: from the normalised input, [tokens × hidden size], to what the output projection reads.
  package func advance(
    _ state: inout BlockState, attending attention: (Matrix) throws(NonFiniteActivation) -> Matrix
  ) throws(NonFiniteActivation) {
    let (stage, input, mixture) = (state.stage, state.input, state.mixture.map { ($0.input, $0.routes) })
    try compute(&state, attending: attention)
    // Whatever is not finite reaches the next group's input or the residual stream, so only these are looked at.
    guard state.isFinite else { throw origin(of: state, behind: stage, input ?? state.residual, mixture) }
  }

  private func compute<Failure: Error>(
    _ state: inout BlockState, attending attention: (Matrix) throws(Failure) -> Matrix
  ) throws(Failure) {
    guard let input = state.input else { preconditionFailure("the block is done") }
    let stage = stages[state.stage]
    state.stage += 1
    state.expert = nil
    switch stage {
    case .attentionInput: state.input = try attention(input)
    case .attentionOutput:
      let output = scaled(normalize(apply(description.attention.output, input), by: description.norms.afterAttention))
      if description.isParallel { state.branch = output } else { add(output, to: &state, norm: description.norms.afterAttentionSum) }
      enter(&state)
    case .feedForwardInput: state.input = activate(description.feedForward.linears, input)
    case .feedForwardOutput:
      finish(&state, with: apply(description.feedForward.linears.down, input))
    case .router:
      state.mixture = route(input)
      enter(&state)
    case .expertInput(let index):
      state.input = activate(description.feedForward.expert(index), input)
      state.expert = index
    case .expertOutput(let index):
      let output = apply(description.feedForward.expert(index).down, input)
      guard let route = state.mixture?.routes[index] else {
        // An expert looked at on its own.
        state.residual.add(scaled(output))
        state.input = nil
        return
      }
      state.mixture!.sum.add(output, atRows: route.tokens, weighedBy: route.weights)
      enter(&state)
    }
  }

  /// Sets the input of the group at hand, as far as it follows from the state.
  private func enter(_ state: inout BlockState) {
    guard state.stage < stages.count else {
      if let sum = state.mixture?.sum { finish(&state, with: sum) }
      return
    }
    switch stages[state.stage] {
    case .attentionInput: state.input = normalize(state.residual, by: description.norms.beforeAttention)
    case .feedForwardInput, .router: state.input = normalize(state.residual, by: description.norms.beforeFeedForward)
    case .expertInput(let index):
      state.input = state.mixture.map { $0.input.rows(at: $0.routes[index].tokens) }
      state.expert = index
    case .attentionOutput, .feedForwardOutput, .expertOutput: break
    }
  }

  /// Adds what the block has made to the residual stream; nothing is left to do.
  private func finish(_ state: inout BlockState, with output: Matrix) {
    if let branch = state.branch { state.residual.add(branch) }
    add(
      scaled(normalize(output, by: description.norms.afterFeedForward)), to: &state, norm: description.norms.afterFeedForwardSum)
    (state.input, state.branch, state.mixture, state.expert) = (nil, nil, nil, nil)
  }

  private func add(_ output: Matrix, to state: inout BlockState, norm: String?) {
    state.residual.add(output)
    if !state.isContribution { state.residual = normalize(state.residual, by: norm) }
  }

  private func scaled(_ output: Matrix) -> Matrix {
    guard description.residualScale != 1 else { return output }
    return Matrix(rows: output.rows, columns: output.columns, elements: output.elements.map { $0 * description.residualScale })
  }

  private func activate(_ linears: FeedForwardLinears, _ input: Matrix) -> Matrix {
    var outputs = apply(linears.readers, to: input)
    switch linears.input {
    case .plain: outputs[0].activate(description.feedForward.activation, gating: nil)
    case .gated: outputs[0].activate(description.feedForward.activation, gating: outputs[1])
    case .fused:
      let size = outputs[0].columns / 2
      let up = outputs[0].columns(in: [size..<2 * size])
      outputs[0] = outputs[0].columns(in: [0..<size])
      outputs[0].activate(description.feedForward.activation, gating: up)
    }
    return outputs[0]
  }

  private func attention(_ input: Matrix) -> Matrix {
    var (queries, keys, values) = attentionInputs(input)
    if let cache {
      cache.key.round(&keys)
      cache.value.round(&values)
    }
    return description.attention.attend(queries: queries, keys: keys, values: values)
  }

  /// Queries, keys and values as attention and its cache see them, for the input of the first group.
  package func attentionInputs(_ input: Matrix) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    let attention = description.attention
    var (queries, keys, values) = projections(input)
    if let table = rotary?.table(for: input.rows) {
      table.rotate(&queries, heads: attention.heads, headSize: attention.headSize)
      table.rotate(&keys, heads: attention.keyValueHeads, headSize: attention.headSize)
    }
    return (queries, keys, values)
  }

  /// The rotary embedding of rows that stand at the given positions; nothing where the block has none.
  ///
  /// - Precondition: the block was prepared for a run through caches.
  package func rotate(_ states: inout Matrix, heads: Int, positions: [Int]) {
    precondition(rotary == nil || placed != nil, "the block was not prepared for a run through caches")
    placed?.rotate(&states, heads: heads, headSize: description.attention.headSize) { positions[$0] }
  }

  /// Queries, keys and values without their positions.
  package func projections(_ input: Matrix) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    let attention = description.attention
    let outputs = apply(attention.projections.linears, to: input)
    var (queries, keys, values) = attention.split(outputs)
    switch attention.queryKeyNorm {
    case nil: break
    case .whole:
      queries = normalize(queries, by: attention.queryNorm)
      keys = normalize(keys, by: attention.keyNorm)
    case .head:
      queries = normalizeHeads(queries, by: attention.queryNorm)
      keys = normalizeHeads(keys, by: attention.keyNorm)
    }
    return (queries, keys, values)
  }

  /// Normalises every head of every row; heads lie one after the other, so they are the rows of a narrower matrix.
  private func normalizeHeads(_ states: Matrix, by name: String) -> Matrix {
    let size = description.attention.headSize
    let heads = Matrix(rows: states.elements.count / size, columns: size, elements: states.elements)
    return Matrix(rows: states.rows, columns: states.columns, elements: normalize(heads, by: name).elements)
  }

  /// The whole block: hidden states in, hidden states out, [tokens × hidden size] both.
  ///
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  public func forward(_ hidden: Matrix) throws(NonFiniteActivation) -> Matrix {
    var state = try start(hidden)
    while state.input != nil { try advance(&state) }
    return state.residual
  }
}

// MARK: - Where infinities come from

extension BlockState {
  /// Whether what the next group reads, or what the block has made in the end, is finite.
  fileprivate var isFinite: Bool { (input ?? residual).isFinite }
}

extension PreparedBlock {
  /// Queries, keys and values without their positions, for a cache, which measures them before anything else does.
  ///
  /// - Throws: `NonFiniteActivation` where one of them is not finite.
  package func finiteProjections(
    _ input: Matrix
  ) throws(NonFiniteActivation) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    let states = projections(input)
    guard states.queries.isFinite, states.keys.isFinite, states.values.isFinite else {
      throw NonFiniteActivation(block: name, layer: overflowing(description.group(.attentionInput), input) ?? "attention")
    }
    return states
  }

  /// Keys and values as a cache would store them, for the input of the first group.
  ///
  /// - Throws: `NonFiniteActivation` where one of them is not finite.
  package func cachedStates(_ input: Matrix) throws(NonFiniteActivation) -> (keys: Matrix, values: Matrix) {
    let states = attentionInputs(input)
    guard states.keys.isFinite, states.values.isFinite else {
      throw NonFiniteActivation(block: name, layer: overflowing(description.group(.attentionInput), input) ?? "attention")
    }
    return (states.keys, states.values)
  }

  /// What put out the first number that is not finite, found by computing the group at hand once more; for experts, whose sum is looked at
  /// when all have spoken, all of them.
  private func origin(
    of state: BlockState, behind stage: Int, _ input: Matrix, _ mixture: (input: Matrix, routes: [MixtureState.Route])?
  ) -> NonFiniteActivation {
    let layer: String
    if let linear = overflowing(description.group(stages[stage]), input) {
      layer = linear
    } else if let mixture, let expert = overflowingExpert(mixture.input, mixture.routes) {
      layer = expert
    } else if !state.residual.isFinite {
      layer = "the residual stream"
    } else {
      switch stages[stage] {
      case .attentionInput: layer = "attention"
      case .feedForwardInput, .expertInput: layer = "the activation"
      default: layer = state.stage < stages.count ? normBefore(state.stage) ?? "the residual stream" : "the residual stream"
      }
    }
    return NonFiniteActivation(block: name, layer: layer)
  }

  private func overflowingExpert(_ input: Matrix, _ routes: [MixtureState.Route]) -> String? {
    for index in routes.indices {
      let (linears, seen) = (description.feedForward.expert(index), input.rows(at: routes[index].tokens))
      // Experts whose weights were not asked for have not been computed either.
      guard (linears.readers + [linears.down]).allSatisfy({ weights[$0] != nil }) else { continue }
      if let reader = overflowing(InputGroup(linears.readers), seen) { return reader }
      if let down = overflowing(InputGroup([linears.down]), activate(linears, seen)) { return down }
    }
    return nil
  }

  private func overflowing(_ group: InputGroup, _ input: Matrix) -> String? {
    group.linears.first { !apply($0, input).isFinite }?.rawValue
  }

  /// The norm between the residual stream and a group.
  private func normBefore(_ stage: Int) -> String? {
    switch stages[stage] {
    case .attentionInput: description.norms.beforeAttention
    case .feedForwardInput, .router, .expertInput: description.norms.beforeFeedForward
    case .attentionOutput, .feedForwardOutput, .expertOutput: nil
    }
  }
}

// MARK: - Mixtures

extension PreparedBlock {
  /// The state before a group of an expert, straight from the one before the router: what experts between would add is left out.
  ///
  /// - Precondition: the router and the expert are prepared.
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  package func skip(to stage: Int, from state: BlockState) throws(NonFiniteActivation) -> BlockState {
    var state = state
    if state.mixture == nil { state.mixture = route(state.input!) }
    let isOutput = if case .expertOutput = stages[stage] { true } else { false }
    state.stage = isOutput ? stage - 1 : stage
    enter(&state)
    if isOutput { try advance(&state) }
    return state
  }

  /// What the layer around a group, or the expert, would add to the residual stream for inputs of that group alone; finite or not, for what
  /// is tried here may overflow without anybody meaning to keep it.
  ///
  /// - Precondition: the groups `description.rest(from: stage)` are prepared.
  package func contribution(of input: Matrix, from stage: Int) -> Matrix {
    let none = Matrix(rows: input.rows, columns: description.hiddenSize)
    var state = BlockState(stage: stage, residual: none, input: input)
    state.isContribution = true
    let end = description.rest(from: stage).upperBound
    while state.stage < end { compute(&state, attending: attention) }
    return state.branch ?? state.residual
  }

  private func route(_ input: Matrix) -> MixtureState {
    guard let mixture = description.feedForward.mixture else { preconditionFailure("the block has no router") }
    let outputs = apply(mixture.routers, to: input)
    var routes = mixture.routes(scores: outputs[0])
    if mixture.shared != nil {
      let weights = outputs.count > 1 ? outputs[1].elements.map { 1 / (1 + exponential(-$0)) } : Array(repeating: 1, count: input.rows)
      routes.append(.init(tokens: Array(0..<input.rows), weights: weights))
    }
    return MixtureState(input: input, routes: routes, sum: Matrix(rows: input.rows, columns: input.columns))
  }
}
