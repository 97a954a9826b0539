public import Models
public import Passes
internal import Tensors
public import Training

/// Knowledge distillation of the whole model: what the passes before it have made learns to predict as the model that came in does (Hinton et
/// al. 2015), on the calibration data.
///
/// What moves may be all weights (healing after pruning; Muralidharan et al. 2024), or only the scales and norms of a quantized model, whose
/// codes stay. Quantized weights themselves move through latent numbers by straight-through gradients. Some sequences are kept out: the best
/// state on those is what is written, and the start where nothing was better.
public struct Distill: ModelPass, TrainingPass {
  public static let name = "distill"
  public static let summary = "distil the whole model from the one that came in"

  /// What moves.
  public enum Moving: String, Sendable, Codable, CaseIterable {
    /// Weights that are plain numbers, and codes of quantized ones by their latents.
    case weights
    /// A low-rank change of weights that are plain numbers, added to them at the end.
    case lora
    case scales
    case zeroPoints = "zero_points"
    case norms
    case biases
    /// Embedding and head, where they are plain numbers.
    case embeddings
  }

  /// What is made small.
  public enum Loss: String, Sendable, Codable, CaseIterable {
    case forwardKL = "forward_kl"
    case reverseKL = "reverse_kl"
    case jensenShannon = "jsd"
    case crossEntropy = "cross_entropy"
  }

  /// A checkpoint to learn from: a directory or a file; the model that came in where none is named.
  public var teacher: String?
  public var moves: [Moving] = [.scales, .norms]
  public var loss = Loss.forwardKL
  /// How much the teacher's own distribution counts in the mixture of `jsd`.
  public var beta = 0.5
  public var temperature = 1.0
  /// The divergence's share of the loss; the rest is cross-entropy.
  public var share = 1.0
  /// What the relative error of hidden states on the way counts beside the loss on predictions; at 0 none are compared.
  public var stateShare = 0.0
  /// Behind how many blocks states are compared: spread evenly over the depth, the last among them.
  public var states = 4
  /// Passes over the calibration sequences.
  public var epochs = 1
  /// Sequences a step.
  public var batch = 8
  /// How fast plain numbers move: weights, norms, biases.
  public var rate = 1e-4
  /// How fast scales move, as shares of themselves.
  public var scaleRate = 5e-4
  /// How fast latents move, in steps of the grid.
  public var codeRate = 0.005
  public var schedule = LearningRate.Decay.cosine
  /// The largest norm of a gradient.
  public var clip = 1.0
  /// The share of the calibration sequences that gradients are not taken of.
  public var keptOut = 0.125
  /// Steps between two looks at the sequences kept out.
  public var validateEvery = 25
  /// Of what `lora` adds.
  public var rank = 16
  /// How far from their codes latents begin, towards the teacher's weights, in steps.
  public var reach = 0.25
  public var layers = LayerSelector()

  public init() {}

  public mutating func findTeacher(at path: String) { teacher = path }

  private enum CodingKeys: String, CodingKey {
    case teacher, rank, reach, moves, loss, beta, temperature, share, stateShare = "state_share", states, epochs, batch, rate, scaleRate =
      "scale_rate", codeRate = "code_rate",
      schedule, clip,
      keptOut = "kept_out", validateEvery = "validate_every", layers
  }

  public var acceptsFactors: Bool { true }
  public var comparesStates: Bool { stateShare > 0 }

  public func validate() throws(InvalidOption) {
    guard !moves.isEmpty else { throw InvalidOption("moves", "at least one of \(Moving.allCases.map(\.rawValue).joined(separator: ", "))") }
    guard !moves.contains(.lora) || !moves.contains(.weights) else {
      throw InvalidOption("moves", "lora moves weights by a low rank, weights as far as they like: one of both")
    }
    for (name, value) in [("rank", rank), ("epochs", epochs), ("batch", batch), ("validate_every", validateEvery)] where value < 1 {
      throw InvalidOption(name, "\(value): a positive number")
    }
    for (name, value) in [("rate", rate), ("scale_rate", scaleRate), ("code_rate", codeRate)] where !(value > 0 && value < 1) {
      throw InvalidOption(name, "\(value): above 0 and below 1")
    }
    guard temperature > 0, temperature <= 100 else { throw InvalidOption("temperature", "\(temperature): above 0, at most 100") }
    guard (0...1).contains(share) else { throw InvalidOption("share", "\(share): 0 to 1") }
    guard stateShare >= 0, stateShare <= 1000 else { throw InvalidOption("state_share", "\(stateShare): 0 to 1000") }
    guard states > 0 else { throw InvalidOption("states", "\(states): a positive number") }
    guard beta > 0, beta < 1 else { throw InvalidOption("beta", "\(beta): above 0 and below 1") }
    guard (0..<0.5).contains(reach) else { throw InvalidOption("reach", "\(reach): 0 or more, below half a step") }
    guard clip > 0 else { throw InvalidOption("clip", "\(clip): a positive number") }
    guard keptOut > 0, keptOut <= 0.5 else { throw InvalidOption("kept_out", "\(keptOut): above 0, at most 0.5") }
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    guard description.hasLogits else { throw InvalidOption("loss", "the model is an encoder and predicts nothing that could be distilled") }
    if let obstacle = description.gradientObstacle { throw InvalidOption("moves", obstacle) }
    return description
  }

  public func run(on model: inout ModelParts, in context: ModelPassContext) throws {
    guard let head = model.head else { throw InvalidOption("loss", "the model has no logits") }
    var moving = moving
    moving.seed = context.seed
    let student = TrainableModel(
      model.description, embedding: model.embedding, blocks: model.blocks, head: head, moving: moving,
      movesTables: moves.contains(.embeddings), towards: try weightsBehind(model, context), reach: Float(reach))
    guard student.isMoving else {
      return context.remark("distill: nothing of what it moves is there: \(moves.map(\.rawValue).joined(separator: ", "))")
    }
    for remark in student.remarks { context.remark("distill: " + remark) }
    let sequences = context.calibration
    guard !sequences.isEmpty else { throw MissingCalibration() }
    let split = KeptOut(of: sequences.count, share: keptOut)
    if split.isEmpty {
      context.remark("distill: too few calibration sequences to keep one out; the last one decides and is learned from, too")
    }
    let (training, kept) = (split.training, split.validation)
    let criterion = criterion
    let compared = ComparedBlocks(
      comparesStates ? states : 0, ofStudent: model.blocks.count, teacher: context.teacher.description.blocks.count,
      kept: context.keptBlocks
    ).teachers
    let teacher =
      criterion.needsTeacher || comparesStates
      ? try Teacher(context.teacher, sequences, keeping: Set(compared.values), context) : nil
    func wanted(_ indices: [Int]) -> WantedStates? {
      guard comparesStates, let teacher else { return nil }
      return WantedStates(blocks: Set(compared.keys), weight: stateShare) { try teacher.states(indices[$0], behind: compared[$1]!) }
    }
    func shown(_ indices: [Int]) -> TrainableModel.Teacher? {
      guard let teacher else { return nil }
      return { sequence, positions in try teacher.logits(indices[sequence], positions) }
    }
    func validation(_ student: TrainableModel) throws -> Double {
      try student.loss(criterion, on: kept.map { sequences[$0] }, teacher: shown(kept))
    }
    var state = try TrainingState(student, keptIn: context) ?? TrainingState(student, before: try validation(student))
    let (before, taken) = (state.progress.before, state.progress.step)
    if taken > 0 { context.remark("distill: taken up again behind step \(taken) of an interrupted run") }
    var (random, turn) = (context.randomness(for: "order"), KeepingTurn())
    let perEpoch = (training.count + batch - 1) / batch
    let steps = epochs * perEpoch
    let rates = LearningRate(peak: 1, decay: schedule)
    descent: for epoch in 0..<epochs {
      let order = training.shuffled(using: &random)
      for (place, first) in stride(from: 0, to: order.count, by: batch).enumerated() where epoch * perEpoch + place >= taken {
        let indices = Array(order[first..<min(first + batch, order.count)])
        do {
          let start = ContinuousClock.now
          let gradient = try state.student.gradient(
            of: criterion, on: indices.map { sequences[$0] }, teacher: shown(indices), wanted: wanted(indices),
            memory: context.activationMemory / 2)
          let factor = Float(min(1, clip / max(gradient.norm, .leastNormalMagnitude)))
          let tokens = indices.reduce(0) { $0 + sequences[$1].count }
          state.step(gradient, stepRates(rates(state.progress.step, of: steps)), factor: factor, tokens: tokens, since: start)
          let progress = state.progress
          context.advance(
            progress.step, of: steps,
            "loss \(Self.short(gradient.loss)), best kept out \(Self.short(progress.bestLoss)) of \(Self.short(before)), "
              + "\(Int(Double(progress.tokens) / progress.seconds)) tokens/s")
          if progress.step % validateEvery == 0 || progress.step == steps {
            state.validate(try validation(state.student), training: gradient.loss)
          }
        } catch let error as NonFiniteActivation {
          context.remark("distill: \(error) at step \(state.progress.step); what was best before is kept, and lower rates would serve")
          break descent
        }
        if context.keepsTraining { try turn.keep { try state.keep(in: context) } }
      }
    }
    let (progress, best) = (state.progress, state.best)
    context.record(
      before: before, after: progress.bestLoss, bestStep: progress.bestStep, took: .seconds(progress.seconds), curve: progress.curve)
    guard progress.bestStep > 0 else {
      return context.remark("distill: no state was better than the start on the sequences kept out; the model stays as it was")
    }
    (model.embedding, model.blocks, model.head) = (best.embedding, best.blocks.map { $0.finished() }, best.head)
  }

  /// What moves is held with a gradient, two moments and the best so far; the inputs of all blocks are kept for a batch.
  public func cost(of description: ModelDescription, tokens: Int, longest: Int) -> TrainingCost {
    let blocks = description.blocks.reduce(0) { $0 + $1.weightCount }
    let head = description.vocabularySize * description.hiddenSize
    let added = description.blocks.reduce(0) { $0 + $1.linearShapes.values.reduce(0) { $0 + min(rank, $1.rows) * ($1.rows + $1.columns) } }
    let moving =
      (moves.contains(.weights) ? blocks : blocks / 16) + (moves.contains(.lora) ? added : 0) + (moves.contains(.embeddings) ? head : 0)
    let perStep = Double(batch) * Double(longest)
    let shown = Int(min(perStep, Double(tokens)))
    let recorded = description.blocks.map(\.recordedNumbers).max() ?? 0
    let kept = description.hiddenSize * description.blocks.count
    let validations = Double(epochs) * Double(tokens) * (1 - keptOut) / max(1, perStep * Double(validateEvery)) + 2
    let states = tokens * 4 * description.hiddenSize * (comparesStates ? min(states, description.blocks.count) + 1 : 1)
    let runs = 4 * shown * description.blocks.reduce(0) { $0 + $1.recordedNumbers }
    return TrainingCost(
      memory: 24 * moving + blocks + 12 * head + 4 * shown * kept + 8 * Parallel.width * longest * recorded + Parallel.width * 64
        * description.vocabularySize * 16,
      activations: states + runs,
      operations: Double(tokens)
        * (Double(epochs) * (1 - keptOut) * (8 * Double(blocks) + 8 * Double(head)) + 2 * Double(blocks)
          + validations * keptOut * (2 * Double(blocks) + 4 * Double(head))))
  }

  /// The teacher's blocks, where those of the model are these, quantized: latents begin towards them.
  ///
  /// - Returns: `nil` where nothing was quantized, or where weights are unlike the teacher's, as after rotations or pruned widths.
  private func weightsBehind(_ model: ModelParts, _ context: ModelPassContext) throws -> [Block]? {
    guard moves.contains(.weights), reach > 0, context.teacher.description.blocks.count == model.blocks.count else { return nil }
    var blocks: [Block] = []
    for (index, block) in model.blocks.enumerated() {
      let wanted = try context.teacher.block(index)
      for (name, linear) in block.linears where linear.weight is QuantizedMatrix {
        guard let other = wanted.linears[name]?.weight, linear.weight.resembles(other) else {
          context.remark("distill: latents begin at their codes: \(block.fullName(of: name)) is not the teacher's weight, quantized")
          return nil
        }
      }
      blocks.append(wanted)
    }
    return blocks
  }

  private static func short(_ loss: Double) -> String { "\((loss * 10_000).rounded() / 10_000)" }

  private var criterion: any LogitLoss {
    let divergence: any LogitLoss =
      switch loss {
      case .forwardKL: ForwardDivergence(temperature: Float(temperature))
      case .reverseKL: ReverseDivergence(temperature: Float(temperature))
      case .jensenShannon: JensenShannonDivergence(beta: Float(beta), temperature: Float(temperature))
      case .crossEntropy: CrossEntropy()
      }
    return share == 1 || loss == .crossEntropy ? divergence : MixedLoss(divergence, share: Float(share))
  }

  private var moving: MovingParameters {
    var moving = MovingParameters()
    (moving.codes, moving.weights) = (moves.contains(.weights), moves.contains(.weights))
    moving.adapterRank = moves.contains(.lora) ? rank : nil
    moving.scales = moves.contains(.scales)
    moving.zeroPoints = moves.contains(.zeroPoints)
    moving.norms = moves.contains(.norms)
    moving.biases = moves.contains(.biases)
    moving.layers = layers
    return moving
  }

  private func stepRates(_ share: Float) -> StepRates {
    var rates = StepRates()
    rates.codes = share * Float(codeRate)
    rates.scales = share * Float(scaleRate)
    rates.zeroPoints = share * Float(codeRate)
    rates.numbers = share * Float(rate)
    return rates
  }
}

extension Weight {
  /// Whether this is another, rounded: even on two bits their correlation is high, while weights in rotated coordinates have none.
  fileprivate func resembles(_ other: any Weight) -> Bool {
    guard rows == other.rows, columns == other.columns else { return false }
    let count = rows * columns
    return dense().withUnsafeElements { own in
      other.dense().withUnsafeElements { other in
        let (a, b) = (Kernel.squaredDistance(own, nil, count: count), Kernel.squaredDistance(other, nil, count: count))
        let product = (a + b - Kernel.squaredDistance(own, other, count: count)) / 2
        return product > 0.5 * (a * b).squareRoot()
      }
    }
  }
}
