public import Tensors

/// Where a sequence stands inside a decoder block: before the linears of one input group.
public struct BlockState: Sendable {
  /// Index of the group whose input is at hand; the number of groups once the block is done.
  public package(set) var stage: Int
  /// What steps to come need.
  package var values: [BlockValue: Matrix]
  /// What the group at hand reads; `nil` once the block is done.
  var reading: BlockValue?
  /// Who sees which tokens, once a router has spoken.
  package var routing: MixtureRouting?
  /// The expert whose group is at hand.
  package var expert: Int?

  init(stage: Int, values: [BlockValue: Matrix], reading: BlockValue?) {
    self.stage = stage
    self.values = values
    self.reading = reading
  }

  /// The residual stream, [tokens × hidden size].
  public var residual: Matrix {
    guard let stream = values[.stream] else { preconditionFailure("a block always has a residual stream") }
    return stream
  }

  /// What the group's linears read, [tokens × features]; `nil` once the block is done. An expert's are only the tokens sent to it.
  public var input: Matrix? { reading.flatMap { values[$0] } }

  /// The tokens whose inputs are at hand; `nil` for all.
  package var inputTokens: [Int]? { expert.flatMap { routing?.routes[$0].tokens } }

  /// The residual stream at the tokens whose inputs are at hand.
  package var inputResidual: Matrix {
    inputTokens.map { residual.rows(at: $0) } ?? residual
  }
}

/// What a router has decided.
package struct MixtureRouting: Sendable {
  /// The tokens an expert sees, in ascending order, and what its output counts for each.
  package struct Route: Sendable {
    package var tokens: [Int] = []
    package var weights: [Float] = []
    /// What the expert's input is multiplied by for each; `nil` where it reads what the router read.
    package var inputWeights: [Float]?
  }

  /// What the router read, [tokens × hidden size].
  let input: Matrix
  /// By expert, the shared one last.
  package let routes: [Route]

  /// What an expert sees of a value that has all tokens.
  func seen(by expert: Int, of value: Matrix) -> Matrix {
    var seen = value.rows(at: routes[expert].tokens)
    if let weights = routes[expert].inputWeights { seen.scaleRows(by: weights) }
    return seen
  }
}
