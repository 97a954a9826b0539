internal import Foundation
public import Models
public import Passes
public import Quantization

/// Mixed precision under a budget: measures what every candidate format costs every group of layers, chooses the best combination that fits, and
/// quantizes with it.
///
/// What runtimes fuse gets one format: layers that share an input, and all routed experts of the model. What a choice costs is measured on the
/// original model, one group at a time (algorithm notes 10.2): by the divergence of the predictions, or faster by the layer's own loss; what the
/// experts cost is added over the blocks. The combination is the exact optimum of the multiple-choice knapsack under the assumption that these
/// costs add up; the report compares their sum with what is measured in the end.
public struct Allocate: Pass, Hashable {
  public static let name = "allocate"
  public static let summary = "mixed precision under a budget of bits per weight or bytes"

  /// A number format that layers may get.
  public struct Candidate: Sendable, Codable, Hashable, ListedOption {
    public var numbers: NumberFormat?
    public var bits: Int?
    public var groupSize: GroupSize?
    public var symmetric: Bool?

    public init(numbers: NumberFormat? = nil, bits: Int? = nil, groupSize: GroupSize? = nil, symmetric: Bool? = nil) {
      self.numbers = numbers
      self.bits = bits
      self.groupSize = groupSize
      self.symmetric = symmetric
    }

    public static var sample: Candidate { Candidate() }

    private enum CodingKeys: String, CodingKey { case numbers, bits, groupSize = "group_size", symmetric }
  }

  public enum Quantizer: String, Sendable, Codable, CaseIterable { case gptq, rtn }

  public enum Sensitivity: String, Sendable, Codable, CaseIterable {
    /// The divergence of the model's predictions with only this group quantized.
    case divergence = "kl"
    /// The group's own loss tr(E·H·Eᵀ): one forward pass for everything, blind to where the group sits.
    case layer
  }

  public var target = SizeTarget.bitsPerWeight(4.25)
  public var candidates = [3, 4, 5, 6, 8].map { Candidate(bits: $0, groupSize: .auto) }
  public var quantizer = Quantizer.gptq
  /// How the scales of all formats are chosen.
  public var scales = ScaleChoice.clip
  /// The order in which `gptq` goes through the columns.
  public var order = GPTQ.Order.activation
  /// Rounds in which `gptq` moves codes that have better neighbours.
  public var refine = 0
  /// How much of the drift that earlier layers have caused `gptq` makes up for, 0 to 1.
  public var driftCorrection = 0.0
  public var sensitivity = Sensitivity.divergence
  /// Calibration sequences, from the end, on which divergence is measured, unless the recipe has probes of its own; where there are more
  /// than twice as many, they are kept out of what the measured formats are fitted to.
  public var probes = 8
  public var layers = LayerSelector()

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case target, candidates, quantizer, scales, order, refine, driftCorrection = "drift_correction", sensitivity, probes, layers
  }

  public var comparesInputs: Bool { driftCorrection > 0 }
  public var usesProbes: Bool { sensitivity == .divergence }
  public var analyses: [any Analysis] { [AllocationAnalysis(options: self)] }

  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { quantizer == .gptq ? linears.widestInput(of: layers) : nil }

  public func validate() throws(InvalidOption) {
    guard candidates.count > 1 else { throw InvalidOption("candidates", "at least two formats to choose from are needed") }
    guard probes > 0 else { throw InvalidOption("probes", "\(probes): a positive number") }
    guard quantizer == .gptq || driftCorrection == 0 else {
      throw InvalidOption("drift_correction", "only gptq makes up for drift; leave it out, or set quantizer: gptq")
    }
    guard quantizer == .gptq || refine == 0 else {
      throw InvalidOption("refine", "only gptq refines codes; leave it out, or set quantizer: gptq")
    }
    guard quantizer == .gptq || order == .activation else {
      throw InvalidOption("order", "only gptq has an order; leave it out, or set quantizer: gptq")
    }
    // What all candidates share first, so that none of them is blamed for it.
    try pass(for: Candidate()).validate()
    for (index, candidate) in candidates.enumerated() {
      do { try pass(for: candidate).validate() } catch {
        throw InvalidOption("candidates[\(index)].\(error.option)", error.reason)
      }
    }
  }

  /// - Throws: `InvalidOption` where sensitivities are to go by predictions that the model does not make.
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    guard description.hasLogits || sensitivity != .divergence else {
      throw InvalidOption("sensitivity", "kl goes by logits, and the model is an encoder without; layer needs none")
    }
    return description
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    guard !linear.isEnd else { throw InvalidOption("layers", "\(linear.name): only layers of decoder blocks are allocated") }
    // Every candidate must fit; which one it will be is not known before the measurement.
    var (bits, schemes) = ([Int](), [QuantizationScheme]())
    for candidate in candidates {
      var pass = pass(for: candidate)
      pass.layers = layers
      let planned = try pass.plan(linear)
      bits.append(planned.storedBits)
      if let scheme = planned.weights { schemes.append(scheme) }
    }
    var planned = linear
    planned.scheme = "one of \(candidates.count)"
    (planned.candidates, planned.weights, planned.blocks) = (schemes, nil, nil)
    switch target {
    case .bitsPerWeight(let target): planned.storedBits = min(Int(target * Double(linear.rows * linear.columns)), bits.max()!)
    case .bytes: planned.storedBits = bits.max()!
    }
    return planned
  }

  /// What `auto` is, which is the same for all candidates that have it.
  public func remarks(on linears: [PlannedLinear]) -> [String] {
    guard let candidate = candidates.first(where: { $0.groupSize == .auto }) else { return [] }
    var pass = pass(for: candidate)
    pass.layers = layers
    return pass.automaticSizes(of: linears, as: Self.name)
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    guard part is Block else { return }
    let allocation = context.answer(to: AllocationAnalysis(options: self))
    let names = part.groups(layers).flatMap(\.linears)
    let overrides = names.map { name in
      let full = part.fullName(of: name)
      let candidate = candidates[allocation.choices[full]!]
      return QuantizationOverride(
        layers: LayerSelector(include: [full]), numbers: candidate.numbers, bits: candidate.bits, groupSize: candidate.groupSize,
        symmetric: candidate.symmetric)
    }
    switch quantizer {
    case .gptq:
      var pass = pass(for: Candidate())
      (pass.layers, pass.overrides) = (layers, overrides)
      try pass.run(on: &part, in: context)
    case .rtn:
      var pass = RoundToNearest()
      (pass.layers, pass.overrides, pass.scales, pass.importance) = (layers, overrides, scales, .activations)
      try pass.run(on: &part, in: context)
    }
    for name in part.inputGroups.flatMap(\.linears) {
      if let loss = allocation.losses[part.fullName(of: name)] { context.record(name, in: part, [allocation.lossName: loss]) }
    }
    for remark in allocation.remarks { context.remark(remark) }
  }
}

extension Allocate {
  /// The quantizing pass that has a candidate's format for all layers.
  func pass(for candidate: Candidate) -> GPTQ {
    var pass = GPTQ()
    (pass.numbers, pass.bits) = (candidate.numbers ?? .int, candidate.bits)
    (pass.groupSize, pass.symmetric) = (candidate.groupSize, candidate.symmetric ?? true)
    (pass.scales, pass.order, pass.refine, pass.driftCorrection) = (scales, order, refine, driftCorrection)
    return pass
  }
}
