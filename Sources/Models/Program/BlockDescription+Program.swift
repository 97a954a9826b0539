extension BlockDescription {
  /// The block as a list of steps.
  public var program: BlockProgram {
    var steps: [BlockStep] = []
    if !mixers.isEmpty {
      steps += entering(by: norms.beforeAttention, into: "attention input") { input in mixerSteps(input) }
      if let norm = norms.afterAttention { steps.append(.norm(norm, "attention output", into: "attention output")) }
    }
    let mixes: [BlockStep] =
      mixers.isEmpty
      ? []
      : [.add("attention output", onto: .stream, scale: residualScale * mixers[0].outputScale)]
        + (norms.afterAttentionSum.map { [.norm($0, .stream, into: .stream)] } ?? [])
    // Side by side, both layers read what entered the block, and are added when both are done.
    if !isParallel { steps += mixes }
    if let feedForward {
      steps += entering(by: norms.beforeFeedForward, into: "feed-forward input") { input in
        guard let mixture = feedForward.mixture else {
          return networkSteps(feedForward, feedForward.linears, feedForward.size, input, into: "feed-forward output")
        }
        return mixture.ownNorms.map { sideBySide(feedForward, mixture, $0, input) }
          ?? mixtureSteps(feedForward, mixture, input, networks: feedForward.networks.count, onto: "feed-forward output")
      }
      if let norm = norms.afterFeedForward { steps.append(.norm(norm, "feed-forward output", into: "feed-forward output")) }
    }
    if isParallel { steps += mixes }
    if let feedForward {
      steps.append(.add("feed-forward output", onto: .stream, scale: residualScale * feedForward.outputScale))
      if let norm = norms.afterFeedForwardSum { steps.append(.norm(norm, .stream, into: .stream)) }
    }
    if let streamScale { steps.append(.scale(.stream, by: streamScale)) }
    return BlockProgram(steps)
  }

  /// A layer that reads the residual stream through a norm, or as it is.
  private func entering(by norm: String?, into value: BlockValue, _ layer: (BlockValue) -> [BlockStep]) -> [BlockStep] {
    guard let norm else { return layer(.stream) }
    return [.norm(norm, .stream, into: value)] + layer(value)
  }

  /// The mixers side by side: what they read alike is read together, and their outputs are added. All have mixed before the first puts out
  /// anything, so that what is kept at a stop is what they made and not what they were made of.
  private func mixerSteps(_ input: BlockValue) -> [BlockStep] {
    var (names, made, mixing, writing) = ([LinearName](), [BlockValue](), [BlockStep](), [BlockStep]())
    for (index, mixer) in mixers.enumerated() {
      let place = MixerPlace(index: index)
      let output = index == 0 ? BlockValue("attention output") : place.value("output")
      let steps = mixer.steps(from: input, into: output, at: place)
      guard case .linears(let own, input, let values) = steps.first, let last = steps.last else {
        preconditionFailure("a mixer begins with linears of its input")
      }
      names += own
      made += values
      mixing += steps.dropFirst().dropLast()
      writing.append(last)
      if index > 0 { writing.append(.add(output, onto: "attention output", scale: mixer.outputScale / mixers[0].outputScale)) }
    }
    return [.linears(names, input, into: made)] + mixing + writing
  }

  private func networkSteps(
    _ feedForward: FeedForwardDescription, _ network: FeedForwardLinears, _ size: Int, _ input: BlockValue, into output: BlockValue,
    _ name: String = ""
  ) -> [BlockStep] {
    func value(_ text: String) -> BlockValue { BlockValue(rawValue: name + text) }
    let (gate, up, inner) = (value("gate"), value("up"), value("inner"))
    let reading: [BlockStep] =
      switch network.input {
      case .gated(let gateName, let upName):
        [.linears([gateName, upName], input, into: [gate, up]), .activate(feedForward.activation, gate, gating: up, into: inner)]
      case .fused(let fused):
        [
          .linears([fused], input, into: [value("gate, up")]), .split(value("gate, up"), sizes: [size, size], into: [gate, up]),
          .activate(feedForward.activation, gate, gating: up, into: inner),
        ]
      case .plain(let upName): [.linears([upName], input, into: [up]), .activate(feedForward.activation, up, gating: nil, into: inner)]
      }
    return reading + [.linears([network.down], inner, into: [output])]
  }

  /// The shared expert as a network of its own, then the mixture of the others, and the sum of what norms make of both.
  private func sideBySide(
    _ feedForward: FeedForwardDescription, _ mixture: MixtureDescription, _ norms: MixtureDescription.OwnNorms, _ input: BlockValue
  ) -> [BlockStep] {
    let (shared, experts): (BlockValue, BlockValue) = ("feed-forward output", "experts output")
    return networkSteps(
      feedForward, feedForward.expert(mixture.experts), feedForward.size(of: mixture.experts), input, into: shared)
      + [.norm(norms.afterShared, shared, into: shared), .norm(norms.beforeRouter, .stream, into: "router input")]
      + mixtureSteps(
        feedForward, mixture, "router input", gathering: .norm(norms.beforeExperts, .stream, into: "experts input"),
        networks: mixture.experts, onto: experts)
      + [.norm(norms.afterExperts, experts, into: experts), .add(experts, onto: shared, scale: 1)]
  }

  /// - Parameters:
  ///   - input: what the router reads.
  ///   - gathering: what makes the value that experts gather from, once the router has read; `nil` where that is the router's input.
  ///   - networks: how many of the layer's are reached through the route.
  private func mixtureSteps(
    _ feedForward: FeedForwardDescription, _ mixture: MixtureDescription, _ input: BlockValue, gathering: BlockStep? = nil, networks: Int,
    onto sum: BlockValue
  ) -> [BlockStep] {
    let made: [BlockValue] = mixture.routers.count > 1 ? ["scores", "shared gate"] : ["scores"]
    var steps: [BlockStep] = [.linears(mixture.routers, input, into: made)] + (gathering.map { [$0] } ?? [])
    steps.append(.route(scores: "scores", sharedGate: made.count > 1 ? made[1] : nil, into: "route"))
    let input = gathering?.makes[0] ?? input
    for (index, network) in feedForward.networks.prefix(networks).enumerated() {
      let name = "expert \(index) "
      let (seen, output) = (BlockValue(rawValue: name + "input"), BlockValue(rawValue: name + "output"))
      steps.append(.gather(input, route: "route", expert: index, into: seen))
      steps += networkSteps(feedForward, network, feedForward.size(of: index), seen, into: output, name)
      steps.append(.scatter(output, route: "route", expert: index, onto: sum))
    }
    return steps
  }
}
