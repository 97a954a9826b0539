public import Models
public import Passes
import Tensors
import Training

// `hessian: output`: what the outputs of a linear are worth to the predictions of the whole model.

extension GPTQ: TrainingPass {
  public var needsSequences: Bool { hessian == .output }

  /// - Throws: `InvalidOption` for a model whose predictions have no gradients here.
  func checkGradients(of description: ModelDescription) throws(InvalidOption) {
    guard description.hasLogits else { throw InvalidOption("hessian", "the model is an encoder and predicts nothing; take input") }
    if let obstacle = description.gradientObstacle { throw InvalidOption("hessian", "\(obstacle); take input") }
  }

  /// Codes and scales once more, by what the outputs are worth.
  ///
  /// - Parameter weight: what is to be come near to, drift corrected.
  /// - Returns: besides the weight, its loss as a share of what it was; `nil` where there is nothing to go by, which the report says.
  func coupled(
    _ quantized: QuantizedMatrix, _ weight: Matrix, _ solver: GPTQSolver, named name: LinearName, of part: any ModelPart,
    zeros: SparsityMask?, _ context: PassContext
  ) throws -> (quantized: QuantizedMatrix, share: Double?) {
    guard part is Block else {
      context.remark("gptq: \(part.fullName(of: name)) is quantized by its inputs alone: its outputs are the predictions themselves")
      return (quantized, nil)
    }
    guard quantized.scheme.groupHeight(rows: quantized.rows) <= 1 else {
      try context.recordFallback(name, in: part, "its rows share a scale: quantized by its inputs alone")
      return (quantized, nil)
    }
    guard let output = try context.answer(to: OutputMoments()).moment(of: part.fullName(of: name))?.damped(by: outputDamping) else {
      try context.recordFallback(name, in: part, "no gradient has reached its outputs: quantized by its inputs alone")
      return (quantized, nil)
    }
    // Powers of two have no neighbours close enough to move to.
    let refits = refit && quantized.scheme.scaleType != .float8E8M0
    let descent = TwoSidedDescent(input: solver.dampedMoments, output: output, weight: weight, refits: refits)
    return descent.refined(quantized, rounds: max(1, refine), zeros: zeros)
  }

  /// One way through the model and back, and the rounds of the descent.
  public func cost(of description: ModelDescription, tokens: Int, longest: Int) -> TrainingCost {
    guard hessian == .output else { return TrainingCost(memory: 0, operations: 0) }
    var (weights, moments, widest, round) = (0, 0, 0, 0.0)
    for shape in description.blocks.flatMap({ $0.linearShapes.values }) {
      let (own, output, input) = (shape.rows * shape.columns, shape.rows * shape.rows, shape.columns * shape.columns)
      weights += own
      moments += 4 * output
      widest = max(widest, 4 * (3 * own + 3 * output + input))
      round += Double(own) * Double(2 * shape.columns + 6 * shape.rows)
    }
    let recorded = description.blocks.map(\.recordedNumbers).max() ?? 0
    let states = 4 * tokens * description.hiddenSize * (description.blocks.count + 2)
    let forth = 6 * Double(weights) + 4 * Double(description.vocabularySize * description.hiddenSize)
    return TrainingCost(
      memory: 8 * Parallel.width * longest * recorded + widest, activations: states + moments,
      operations: Double(tokens) * forth + Double(max(1, refine)) * round)
  }
}
