public import Models

/// A pass that goes back and forth over the calibration data: what that costs, for the estimate before a run.
public protocol TrainingPass: Pass {
  /// Whether saved statistics cannot take the place of the calibration sequences.
  var needsSequences: Bool { get }
  /// - Parameters:
  ///   - description: of the model as the pass finds it.
  ///   - tokens: of all calibration sequences.
  ///   - longest: tokens of the longest of them.
  func cost(of description: ModelDescription, tokens: Int, longest: Int) -> TrainingCost
}

extension TrainingPass {
  public var needsSequences: Bool { true }
}

/// What a training pass takes beyond what a sweep does.
public struct TrainingCost: Sendable, Equatable {
  /// Bytes that it cannot do without.
  public var memory: Int
  /// Bytes of activations that it keeps where there is memory for them, and makes anew or reads again where there is not.
  public var activations: Int
  /// Floating-point operations.
  public var operations: Double

  public init(memory: Int, activations: Int = 0, operations: Double) {
    self.memory = memory
    self.activations = activations
    self.operations = operations
  }
}

extension BlockDescription {
  /// Weights of all its linears.
  package var weightCount: Int { linearShapes.values.reduce(0) { $0 + $1.rows * $1.columns } }

  /// Numbers a token leaves behind on the way through the block: what linears make, what they read, once where several read the same, and
  /// the residual stream with its norms. On the way back it gets gradients for as many.
  package var recordedNumbers: Int {
    let read = inputGroups.reduce(0) { sum, group in sum + (group.linears.first.flatMap { linearShapes[$0]?.columns } ?? 0) }
    return linearShapes.values.reduce(2 * hiddenSize + read) { $0 + $1.rows }
  }
}
