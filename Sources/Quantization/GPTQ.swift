public import Models
public import Passes
import Tensors
import Training

/// GPTQ: quantizes column by column and lets the columns still to come make up for the error (Frantar et al. 2022).
///
/// Goals, in order: the layer loss tr(E·H·Eᵀ); honesty about every layer that could not be done; speed. Deviations from the reference
/// implementation: the LDL form of the update (one factorization, no inverse; the codes are the same), inputs that the calibration data
/// never activates are rounded instead of zeroed, the damping is relative to the mean over live inputs, and it rises in stated steps before
/// a layer falls back to rounding.
public struct GPTQ: WeightQuantizer {
  public static let name = "gptq"
  public static let summary = "GPTQ: quantize columns in turn, correcting the rest by the calibration data"

  /// The order in which columns are quantized.
  public enum Order: String, Sendable, Codable, CaseIterable {
    /// Most active inputs first; scales are fixed beforehand from the original weights, so no runtime needs to know.
    case activation
    /// Groups by their most active input, and most active first inside each; scales see the weights as corrected so far.
    case group
    /// Left to right; scales see the weights as corrected so far.
    case natural
  }

  /// What the loss of a layer is made of.
  public enum Curvature: String, Sendable, Codable, CaseIterable {
    /// The second moment of its inputs.
    case input
    /// That, and the second moment of the gradients of its outputs: codes and scales that are found by the inputs alone are moved once more to
    /// where the predictions change least (YAQA, Tseng et al. 2025). Costs one way through the whole model and back.
    case output
  }

  public var hessian = Curvature.input
  public var numbers = NumberFormat.int
  public var bits: Int?
  public var groupSize: GroupSize?
  public var symmetric = true
  public var zeroPoint = ZeroPointKind.integer
  public var scales = ScaleChoice.clip
  public var order = Order.activation
  /// Whether scales are always fixed from the original weights, whatever the order.
  public var staticGroups = false
  /// Whether scales are moved to the least squares of the whole loss once all codes are known.
  public var refit = true
  /// Rounds in which each code moves to where the whole loss is smallest with all others as they are, and the scales follow.
  public var refine = 0
  /// How much of the drift that earlier layers have caused the weights are asked to make up for, 0 for none to 1 for all that a regression
  /// on the calibration data finds. Costs a second stream of activations through the unquantized model.
  public var driftCorrection = 0.0
  /// Added to the diagonal of the Hessian, as a fraction of its mean.
  public var damping = 0.01
  /// Added to the diagonal of the second moment of the outputs' gradients, as a fraction of its mean.
  public var outputDamping = 0.1
  /// Columns between two updates of all that follow; any number gives the same codes up to rounding.
  public var blockSize = 128
  public var activations = InputFormat.none
  public var layers = LayerSelector()
  public var overrides: [QuantizationOverride] = []

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case hessian, numbers, bits, groupSize = "group_size", symmetric, zeroPoint = "zero_point", scales, order, staticGroups =
      "static_groups", refit,
      refine, driftCorrection = "drift_correction", damping, outputDamping = "output_damping", blockSize = "block_size", activations,
      layers, overrides
  }

  public var comparesInputs: Bool { driftCorrection > 0 }
  public var analyses: [any Analysis] { hessian == .output ? [OutputMoments()] : [] }
  package var weighsInputs: Bool { true }
  public var acceptsFactors: Bool { true }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { linears.widestInput(of: layers) }

  public func validate() throws(InvalidOption) {
    try validateGrid()
    guard (0...1).contains(driftCorrection) else { throw InvalidOption("drift_correction", "\(driftCorrection): between 0 and 1") }
    guard damping >= 0, damping < 10 else {
      throw InvalidOption("damping", "\(damping): a fraction of the Hessian's mean diagonal, 0 to 10")
    }
    guard refine >= 0 else { throw InvalidOption("refine", "\(refine): 0 or a positive number") }
    let movable =
      ([numbers] + overrides.compactMap(\.numbers)).allSatisfy { $0 == .int }
      && (zeroPoint == .integer || symmetric && overrides.allSatisfy { $0.symmetric != false })
    guard refine == 0 || movable else {
      throw InvalidOption("refine", "codes of integers with whole zero points can be moved; leave it out for other numbers")
    }
    guard hessian == .input || movable else {
      throw InvalidOption(
        "hessian", "codes of integers with whole zero points can be moved by what outputs are worth; input for other numbers")
    }
    guard outputDamping > 0, outputDamping < 1000 else {
      throw InvalidOption("output_damping", "\(outputDamping): a fraction of the mean diagonal, above 0, below 1000")
    }
    guard blockSize >= 1 else { throw InvalidOption("block_size", "\(blockSize): a positive number") }
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    if hessian == .output { try checkGradients(of: description) }
    return description
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    for group in part.groups(layers) {
      guard !(part is Embedding) else {
        for name in group.linears {
          try round(name, of: &part, context, because: "an embedding is looked up, so it has no Hessian: rounded to nearest")
        }
        continue
      }
      // Taken after the groups before it were quantized: true-sequential.
      let (hessian, drift) = try context.secondMoment(of: group, in: part, comparing: comparesInputs)
      let global = globalScale(of: group, in: part)
      guard hessian.tokens > 0 else {
        for name in group.linears {
          try round(name, of: &part, context, globalScale: global, because: "\(Unreached.reason): rounded to nearest")
        }
        try quantizeInputs(of: group, in: &part, context)
        continue
      }
      var solvers: [QuantizationScheme.Granularity: Result<GPTQSolver, GPTQSolver.Failure>] = [:]
      for name in group.linears {
        let linear = part[name]
        if comparesInputs, drift == nil { try context.recordFallback(name, in: part, Unreached.noDrift) }
        if let factors = linear.weight as? FactoredWeight {
          guard
            case .success(let solver) = GPTQSolver.prepare(
              hessian, groupSize: try factorSchemes(of: factors, named: name, in: part).input.groupSize(columns: factors.columns),
              order: order, damping: damping, refining: refine > 0 || self.hessian == .output)
          else { throw InvalidOption("damping", "\(damping) does not make the Hessian of \(part.fullName(of: name)) positive definite") }
          if self.hessian == .output { context.remark("gptq: low-rank factors are quantized by their inputs alone") }
          try quantize(factors, named: name, of: &part, solver, hessian, context)
          continue
        }
        let scheme = try storedScheme(of: name, in: part)
        if case .block(_, let width) = scheme.granularity, linear.weight.columns % width != 0 {
          throw InvalidOption("group_size", "tiles of \(width) columns do not divide \(part.fullName(of: name)); round it with rtn")
        }
        // The order of columns may depend on the groups, and the factorization on the order.
        let key = order == .group ? scheme.granularity : .channel
        let solver =
          solvers[key]
          ?? GPTQSolver.prepare(
            hessian, groupSize: scheme.groupSize(columns: linear.weight.columns), order: order, damping: damping,
            refining: refine > 0 || self.hessian == .output)
        solvers[key] = solver
        switch solver {
        case .failure(let failure): try round(name, of: &part, context, globalScale: global, because: failure.description)
        case .success(let solver):
          var weight = linear.weight.dense()
          let zeros = zerosToKeep(of: weight, in: scheme)
          let zeroShare = weight.zeroShare
          if let drift { weight = solver.corrected(weight, for: drift, by: driftCorrection) }
          var (quantized, loss) = solver.quantize(
            weight, scheme: scheme, scales: scales, staticGroups: staticGroups, refit: refit, refine: refine,
            blockSize: blockSize, globalScale: global, zeros: zeros)
          var twoSided: Double?
          if self.hessian == .output {
            (quantized, twoSided) = try coupled(quantized, weight, solver, named: name, of: part, zeros: zeros, context)
          }
          let figures = RoundingFigures(of: quantized, against: weight)
          part[name].weight = quantized
          var metrics = [
            "bits_per_weight": quantized.bitsPerWeight, "relative_layer_loss": loss, "damping": solver.damping,
            "clip": figures.clip, "calibration_tokens": Double(hessian.tokens),
          ]
          if let twoSided { metrics["two_sided_loss_share"] = twoSided }
          if hessian.skippedTokens > 0 { metrics["skipped_tokens"] = Double(hessian.skippedTokens) }
          if solver.deadInputs > 0 { metrics["dead_inputs"] = Double(solver.deadInputs) }
          metrics.merge(sparsityMetrics((zeroShare, figures.zeros.now))) { $1 }
          context.record(name, in: part, metrics, scheme: scheme.description)
          try recordLostZeros(name, in: part, (zeroShare, figures.zeros.now), context)
          if solver.damping > damping {
            try context.recordFallback(
              name, in: part, "the Hessian was not positive definite: damping raised from \(damping) to \(solver.damping)")
          }
        }
      }
      try quantizeInputs(of: group, in: &part, context)
    }
  }

  /// - Parameter globalScale: of the linears that runtimes fuse with this one.
  private func round(
    _ name: LinearName, of part: inout any ModelPart, _ context: PassContext, globalScale: Float? = nil, because reason: String
  ) throws {
    if let factors = part[name].weight as? FactoredWeight {
      var rounding = RoundToNearest()
      (rounding.numbers, rounding.bits, rounding.groupSize, rounding.symmetric) = (numbers, bits, groupSize, symmetric)
      (rounding.zeroPoint, rounding.scales, rounding.overrides) = (zeroPoint, scales, overrides)
      try rounding.quantize(factors, named: name, of: &part, importance: nil, context)
      return try context.recordFallback(name, in: part, reason)
    }
    let scheme = try storedScheme(of: name, in: part)
    let weight = part[name].weight.dense()
    let quantized = RoundToNearest.quantize(weight, scheme: scheme, scales: scales, globalScale: globalScale)
    let figures = RoundingFigures(of: quantized, against: weight)
    part[name].weight = quantized
    context.record(
      name, in: part,
      ["bits_per_weight": quantized.bitsPerWeight, "relative_weight_error": figures.relativeError].merging(
        sparsityMetrics(figures.zeros)
      ) { $1 }, scheme: scheme.description)
    try context.recordFallback(name, in: part, reason)
  }
}

extension Pass where Self == GPTQ {
  /// GPTQ, for use in code: `Pipeline([.gptq(bits: 3)])`.
  public static func gptq(bits: Int = 4, groupSize: GroupSize = 128, symmetric: Bool = true) -> GPTQ {
    var pass = GPTQ()
    pass.bits = bits
    pass.groupSize = groupSize
    pass.symmetric = symmetric
    return pass
  }
}
