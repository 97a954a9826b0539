/// A stop of the forward pass: before the linears of one input group.
package enum Stage: Sendable, Equatable {
  case attentionInput, attentionOutput
  case feedForwardInput, feedForwardOutput
  case router
  /// Index of an expert; their number for the shared one.
  case expertInput(Int), expertOutput(Int)
}

extension BlockDescription {
  /// All stops, in the order of the computation; one for each input group.
  package var stages: [Stage] {
    let attention: [Stage] = [.attentionInput, .attentionOutput]
    guard feedForward.mixture != nil else { return attention + [.feedForwardInput, .feedForwardOutput] }
    return attention + [.router] + feedForward.networks.indices.flatMap { [Stage.expertInput($0), .expertOutput($0)] }
  }

  /// Groups whose outputs are added to the residual stream together: attention's and the feed-forward layer's.
  package var subBlocks: [Range<Int>] { [0..<2, 2..<stages.count] }

  func group(_ stage: Stage) -> InputGroup {
    switch stage {
    case .attentionInput: InputGroup(attention.projections.linears)
    case .attentionOutput: InputGroup([attention.output])
    case .feedForwardInput: InputGroup(feedForward.linears.readers)
    case .feedForwardOutput: InputGroup([feedForward.linears.down])
    case .router: InputGroup(feedForward.mixture?.routers ?? [])
    case .expertInput(let index): InputGroup(feedForward.expert(index).readers)
    case .expertOutput(let index): InputGroup([feedForward.expert(index).down])
    }
  }

  /// The stop that states are kept at on the way to another: experts do not read each other, so all of them are reached from the router's.
  package func anchor(of stage: Int) -> Int {
    switch stages[stage] {
    case .expertInput, .expertOutput: 2
    default: stage
    }
  }

  /// The stops that follow up to where the layer of `stage`, or the expert, has made its contribution to the residual stream.
  package func rest(from stage: Int) -> Range<Int> {
    switch stages[stage] {
    case .attentionInput, .attentionOutput: stage..<2
    case .feedForwardInput, .feedForwardOutput, .router: stage..<stages.count
    case .expertInput: stage..<stage + 2
    case .expertOutput: stage..<stage + 1
    }
  }

  /// Whether a group's input follows from the residual stream alone, so that it need not be kept.
  package func inputFollowsFromResidual(stage: Int) -> Bool {
    switch stages[stage] {
    case .attentionInput, .feedForwardInput, .router, .expertInput: true
    case .attentionOutput, .feedForwardOutput, .expertOutput: false
    }
  }
}
