public import Tensors

/// Where a sequence stands inside a decoder block: before the linears of one input group.
public struct BlockState: Sendable {
  /// Index of the group whose input is at hand; the number of groups once the block is done.
  public package(set) var stage: Int
  /// The residual stream, [tokens × hidden size].
  public package(set) var residual: Matrix
  /// What the group's linears read, [tokens × features]; `nil` once the block is done. An expert's are only the tokens sent to it.
  public package(set) var input: Matrix?
  /// What attention has made of the tokens in a parallel block, until it is added.
  package var branch: Matrix?
  /// Who sees which tokens, once a router has spoken.
  package var mixture: MixtureState?
  /// Whether only what is added to the residual stream is asked for, and not what a norm makes of the sum.
  package var isContribution = false
  /// The expert whose group is at hand.
  package var expert: Int?

  package init(stage: Int, residual: Matrix, input: Matrix?, branch: Matrix? = nil) {
    self.stage = stage
    self.residual = residual
    self.input = input
    self.branch = branch
  }

  /// The tokens whose inputs are at hand; `nil` for all.
  package var inputTokens: [Int]? { expert.flatMap { mixture?.routes[$0].tokens } }

  /// Whether the router has just spoken.
  package var isFirstExpert: Bool { stage == 3 && expert == 0 }

  /// The residual stream at the tokens whose inputs are at hand.
  package var inputResidual: Matrix {
    inputTokens.map { residual.rows(at: $0) } ?? residual
  }
}

/// A mixture at work.
package struct MixtureState: Sendable {
  /// The tokens an expert sees, in ascending order, and what its output counts for each.
  package struct Route: Sendable {
    package var tokens: [Int] = []
    package var weights: [Float] = []
  }

  /// What the router read, [tokens × hidden size].
  let input: Matrix
  /// By expert, the shared one last.
  package let routes: [Route]
  /// What the experts so far add up to, [tokens × hidden size].
  var sum: Matrix
}
