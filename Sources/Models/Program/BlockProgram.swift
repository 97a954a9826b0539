/// What a block computes: a dozen steps over named values, one after the other, from the residual stream that enters it to the one that leaves.
///
/// Everything that passes and the forward pass must know of a block's shape follows from this list: which linears share an input, what has to
/// be kept where a run stops, what reads the residual stream and what is added to it.
public struct BlockProgram: Sendable, Equatable {
  public var steps: [BlockStep]

  public init(_ steps: [BlockStep]) { self.steps = steps }
}

/// A matrix that steps make and read, [tokens × features]; an expert's has only the tokens that were sent to it.
public struct BlockValue: RawRepresentable, Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
  public let rawValue: String

  public init(rawValue: String) { self.rawValue = rawValue }
  public init(stringLiteral value: String) { rawValue = value }

  /// The residual stream.
  public static let stream: BlockValue = "stream"

  public var description: String { rawValue }
}

/// One step of a block's program. A step exists only because some family has it.
public enum BlockStep: Sendable, Equatable {
  /// into ← norm(from); `into` may be `from` itself, where norms stand on sums.
  case norm(String, BlockValue, into: BlockValue)
  /// The outputs of linears that read one input: an input group, and the only place where a run can stop.
  case linears([LinearName], BlockValue, into: [BlockValue])
  /// One of the block's mixers, by its place among them: from what its linears make of every token to what its output linear reads.
  case mix(Int, [BlockValue], into: BlockValue)
  /// into ← act(from), or act(from) ⊙ gated.
  case activate(Activation, BlockValue, gating: BlockValue?, into: BlockValue)
  /// The columns of one value in stretches of the given sizes.
  case split(BlockValue, sizes: [Int], into: [BlockValue])
  /// Who sees which tokens, from the scores of all experts and, where a shared expert has one, its gate.
  case route(scores: BlockValue, sharedGate: BlockValue?, into: BlockValue)
  /// The tokens that a route sends to an expert.
  case gather(BlockValue, route: BlockValue, expert: Int, into: BlockValue)
  /// onto ← onto + from, weighed and put back in the places of the tokens; `onto` begins with zeros.
  case scatter(BlockValue, route: BlockValue, expert: Int, onto: BlockValue)
  /// onto ← onto + scale · from.
  case add(BlockValue, onto: BlockValue, scale: Float)
  /// A value multiplied by a number of the block's own, by its name inside the block.
  case scale(BlockValue, by: String)

  /// What the step needs.
  public var reads: [BlockValue] {
    switch self {
    case .norm(_, let from, _), .linears(_, let from, _), .split(let from, _, _), .scale(let from, _): [from]
    case .mix(_, let from, _): from
    case .activate(_, let from, let gated, _): [from] + (gated.map { [$0] } ?? [])
    case .route(let scores, let gate, _): [scores] + (gate.map { [$0] } ?? [])
    case .gather(let from, let route, _, _): [from, route]
    case .scatter(let from, let route, _, let onto): [from, route, onto]
    case .add(let from, let onto, _): [from, onto]
    }
  }

  /// What the step makes, or makes anew.
  public var makes: [BlockValue] {
    switch self {
    case .norm(_, _, let into), .mix(_, _, let into), .activate(_, _, _, let into), .route(_, _, let into), .gather(_, _, _, let into):
      [into]
    case .linears(_, _, let into), .split(_, _, let into): into
    case .scatter(_, _, _, let onto), .add(_, let onto, _), .scale(let onto, _): [onto]
    }
  }
}
