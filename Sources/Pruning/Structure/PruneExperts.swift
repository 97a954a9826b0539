public import Models
public import Passes
internal import Tensors

/// Leaves out the experts of a mixture that contribute least; the router chooses among the others, as many of them for every token as before.
///
/// REAP (Lasby et al. 2025, equation 9): an expert's score is the mean over the tokens sent to it of its router weight times the length of its
/// output. Experts go whole, so they may be compressed already. Every block keeps as many experts as every other, because configurations have
/// one number for all. Experts that no calibration token is sent to have no score: they go first, the lightest before the others.
public struct PruneExperts: BlockPass, Hashable {
  public static let name = "prune_experts"
  public static let summary = "fewer experts in every mixture (REAP)"

  public enum Criterion: String, Sendable, Codable, CaseIterable {
    /// Router weight times length of the output, over the tokens that an expert sees.
    case reap
    /// How many tokens it sees.
    case frequency
    /// The norm of its weights.
    case magnitude
    case random
  }

  /// Of the experts, what is to go; not used where their number is given.
  public var ratio = 0.25
  public var experts: Int?
  public var criterion = Criterion.reap
  /// Calibration sequences whose hidden states are looked at, at most.
  public var sequences = 64

  public init() {}

  public var usesCalibration: Bool { criterion == .reap || criterion == .frequency }

  public func validate() throws(InvalidOption) {
    guard ratio > 0, ratio < 1 else { throw InvalidOption("ratio", "\(ratio): between 0 and 1") }
    guard experts.map({ $0 > 0 }) ?? true else { throw InvalidOption("experts", "\(experts!): a positive number") }
    guard sequences > 0 else { throw InvalidOption("sequences", "\(sequences): a positive number") }
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    var smaller = description
    var found = false
    for index in smaller.blocks.indices {
      guard let mixture = smaller.blocks[index].feedForward?.mixture else { continue }
      found = true
      guard mixture.groups == nil else {
        throw InvalidOption(
          "passes", "\(smaller.blocks[index].prefix)\(mixture.router) chooses experts by groups of equal size; none can be left out")
      }
      smaller.blocks[index].feedForward?.mixture?.experts = try kept(of: mixture)
    }
    guard found else { throw InvalidOption("experts", "the model has no mixture of experts") }
    return smaller
  }

  private func kept(of mixture: MixtureDescription) throws(InvalidOption) -> Int {
    let count = experts ?? Int((Double(mixture.experts) * (1 - ratio)).rounded())
    guard count >= mixture.expertsPerToken, count < mixture.experts else {
      throw InvalidOption(
        "experts",
        "\(count) to be left: the model has \(mixture.experts), and every token is sent to \(mixture.expertsPerToken) of them; choose between"
      )
    }
    return count
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    guard let feedForward = block.description.feedForward, let mixture = feedForward.mixture else { return }
    let found = try scores(of: block, feedForward, mixture, context)
    let scores = found.map { $0 ?? 0 }
    let unreached = found.indices.filter { found[$0] == nil }
    let weights = unreached.isEmpty ? [] : magnitudes(of: block, feedForward, mixture)
    let count = try kept(of: mixture)
    let order = (0..<mixture.experts).sorted { a, b in
      switch (found[a], found[b]) {
      case (let first?, let second?): (first, b) > (second, a)
      case (_?, nil): true
      case (nil, _?): false
      case (nil, nil): (weights[a], b) > (weights[b], a)
      }
    }
    let kept = order.prefix(count).sorted()
    if !unreached.isEmpty {
      // Where all of them go, which one goes first decides nothing.
      let told =
        "no calibration token was sent to \(unreached.count) of \(mixture.experts) experts, which were ranked last, by their weights: "
        + unreached.map(String.init).joined(separator: " ")
      if unreached.contains(where: kept.contains) {
        try context.recordFallback(mixture.router, in: block, told)
      } else {
        context.remark("\(block.name): \(told)")
      }
    }
    func linears(of expert: Int) -> [LinearName] {
      let network = feedForward.expert(expert)
      return network.readers + [network.down]
    }
    // Experts are numbered without gaps.
    let originals = block.linears
    for expert in 0..<mixture.experts { for name in linears(of: expert) { block.linears[name] = nil } }
    for (place, expert) in kept.enumerated() {
      for (to, from) in zip(linears(of: place), linears(of: expert)) { block.linears[to] = originals[from] }
    }
    block.keep(rows: kept, of: mixture.router)
    for parameter in mixture.perExpert {
      guard let tensor = block.parameters[parameter.name] else { continue }
      let values = tensor.floats()
      block.parameters[parameter.name] = Tensor(kept.map { values[$0] }, shape: tensor.shape.dropLast() + [count], dtype: tensor.dtype)
    }
    block.description.feedForward?.mixture?.experts = count
    context.record(
      mixture.router, in: block,
      Dictionary(uniqueKeysWithValues: scores.enumerated().map { ("score_\($0.offset)", $0.element) })
        .merging(["kept": Double(count)]) { $1 },
      scheme: "\(count) of \(mixture.experts) experts: \(kept.map(String.init).joined(separator: " "))")
  }

  private func magnitudes(of block: Block, _ feedForward: FeedForwardDescription, _ mixture: MixtureDescription) -> [Double] {
    (0..<mixture.experts).map { expert in
      let network = feedForward.expert(expert)
      return (network.readers + [network.down]).reduce(0) { $0 + block[$1].weight.dense().rowSquares.reduce(0, +) }
    }
  }

  /// - Returns: `nil` for the experts that no token was sent to.
  private func scores(
    of block: Block, _ feedForward: FeedForwardDescription, _ mixture: MixtureDescription, _ context: PassContext
  ) throws -> [Double?] {
    switch criterion {
    case .random:
      var random = context.randomness(for: mixture.router, in: block)
      return (0..<mixture.experts).map { _ in Double.random(in: 0..<1, using: &random) }
    case .magnitude: return magnitudes(of: block, feedForward, mixture)
    case .reap, .frequency:
      let inputs = try context.inputs(of: block, limit: sequences)
      let prepared = PreparedBlock(block, positions: inputs.map(\.rows).max() ?? 0)
      let writers = (0..<mixture.experts).map { expert in
        let down = block[feedForward.expert(expert).down]
        return (weight: down.weight.dense(), bias: down.bias)
      }
      let groups = block.inputGroups
      let parts: [[(sum: Double, tokens: Int)]] = try Parallel.map(inputs.count) { sequence in
        var state = try prepared.start(inputs[sequence])
        var found = [(sum: Double, tokens: Int)](repeating: (0, 0), count: mixture.experts)
        while state.input != nil {
          if let expert = state.expert, expert < mixture.experts,
            groups[state.stage].linears == [feedForward.expert(expert).down],
            let route = state.routing?.routes[expert], let input = state.input
          {
            var outputs = input.times(transposed: writers[expert].weight)
            if let bias = writers[expert].bias { outputs.add(row: bias) }
            let lengths = outputs.rowSquares.map { $0.squareRoot() }
            for (token, length) in lengths.enumerated() { found[expert].sum += Double(route.weights[token]) * length }
            found[expert].tokens += lengths.count
          }
          try prepared.advance(&state)
        }
        return found
      }
      return (0..<mixture.experts).map { expert in
        let (sum, tokens) = parts.reduce((0.0, 0)) { ($0.0 + $1[expert].sum, $0.1 + $1[expert].tokens) }
        guard tokens > 0 else { return nil }
        return criterion == .frequency ? Double(tokens) : sum / Double(tokens)
      }
    }
  }
}

extension Pass where Self == PruneExperts {
  /// Fewer experts, for use in code: `Pipeline([.pruneExperts(ratio: 0.25)])`.
  public static func pruneExperts(ratio: Double = 0.25, criterion: PruneExperts.Criterion = .reap) -> PruneExperts {
    var pass = PruneExperts()
    (pass.ratio, pass.criterion) = (ratio, criterion)
    return pass
  }
}
