extension BlockDescription {
  /// The block as a list of steps.
  public var program: BlockProgram {
    var steps: [BlockStep] = []
    steps += entering(by: norms.beforeAttention, into: "attention input") { input in attentionSteps(input) }
    if let norm = norms.afterAttention { steps.append(.norm(norm, "attention output", into: "attention output")) }
    let attends: [BlockStep] =
      [.add("attention output", onto: .stream, scale: residualScale)]
      + (norms.afterAttentionSum.map { [.norm($0, .stream, into: .stream)] } ?? [])
    // Side by side, both layers read what entered the block, and are added when both are done.
    if !isParallel { steps += attends }
    steps += entering(by: norms.beforeFeedForward, into: "feed-forward input") { input in
      feedForward.mixture.map { mixtureSteps($0, input) } ?? networkSteps(feedForward.linears, input, into: "feed-forward output")
    }
    if let norm = norms.afterFeedForward { steps.append(.norm(norm, "feed-forward output", into: "feed-forward output")) }
    if isParallel { steps += attends }
    steps.append(.add("feed-forward output", onto: .stream, scale: residualScale))
    if let norm = norms.afterFeedForwardSum { steps.append(.norm(norm, .stream, into: .stream)) }
    return BlockProgram(steps)
  }

  /// A layer that reads the residual stream through a norm, or as it is.
  private func entering(by norm: String?, into value: BlockValue, _ layer: (BlockValue) -> [BlockStep]) -> [BlockStep] {
    guard let norm else { return layer(.stream) }
    return [.norm(norm, .stream, into: value)] + layer(value)
  }

  private func attentionSteps(_ input: BlockValue) -> [BlockStep] {
    let made: [BlockValue] =
      switch attention.projections {
      case .separate: ["queries", "keys", "values"]
      case .fused: ["queries, keys, values"]
      }
    return [
      .linears(attention.projections.linears, input, into: made), .attention(made, into: "context"),
      .linears([attention.output], "context", into: ["attention output"]),
    ]
  }

  private func networkSteps(_ network: FeedForwardLinears, _ input: BlockValue, into output: BlockValue, _ name: String = "") -> [BlockStep]
  {
    func value(_ text: String) -> BlockValue { BlockValue(rawValue: name + text) }
    let (gate, up, inner) = (value("gate"), value("up"), value("inner"))
    let reading: [BlockStep] =
      switch network.input {
      case .gated(let gateName, let upName):
        [.linears([gateName, upName], input, into: [gate, up]), .activate(feedForward.activation, gate, gating: up, into: inner)]
      case .fused(let fused):
        [
          .linears([fused], input, into: [value("gate, up")]), .halve(value("gate, up"), into: [gate, up]),
          .activate(feedForward.activation, gate, gating: up, into: inner),
        ]
      case .plain(let upName): [.linears([upName], input, into: [up]), .activate(feedForward.activation, up, gating: nil, into: inner)]
      }
    return reading + [.linears([network.down], inner, into: [output])]
  }

  private func mixtureSteps(_ mixture: MixtureDescription, _ input: BlockValue) -> [BlockStep] {
    let made: [BlockValue] = mixture.routers.count > 1 ? ["scores", "shared gate"] : ["scores"]
    var steps: [BlockStep] = [
      .linears(mixture.routers, input, into: made), .route(scores: "scores", sharedGate: made.count > 1 ? made[1] : nil, into: "route"),
    ]
    for (index, network) in feedForward.networks.enumerated() {
      let name = "expert \(index) "
      let (seen, output) = (BlockValue(rawValue: name + "input"), BlockValue(rawValue: name + "output"))
      steps.append(.gather(input, route: "route", expert: index, into: seen))
      steps += networkSteps(network, seen, into: output, name)
      steps.append(.scatter(output, route: "route", expert: index, onto: "feed-forward output"))
    }
    return steps
  }
}
