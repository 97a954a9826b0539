package import Models
package import Passes
import Tensors

/// A pass that turns weights into codes: the options all such passes share, and what follows from them.
package protocol WeightQuantizer: Pass {
  var numbers: NumberFormat { get }
  /// Of an integer code; 4 where nothing is said.
  var bits: Int? { get set }
  /// By default 128 for integers, `channel` for fp8, and what the format prescribes for the others.
  var groupSize: GroupSize? { get set }
  var symmetric: Bool { get }
  var zeroPoint: ZeroPointKind { get }
  var scales: ScaleChoice { get }
  /// Whether the scale search weighs the error of each input by its mean square.
  var weighsInputs: Bool { get }
  var activations: InputFormat { get }
  var layers: LayerSelector { get }
  var overrides: [QuantizationOverride] { get }
}

extension WeightQuantizer {
  public var effective: Self {
    var copy = self
    copy.bits = bits ?? numbers.bits ?? 4
    copy.groupSize = groupSize ?? numbers.groupSize ?? (numbers == .fp8 ? .channel : 128)
    return copy
  }

  public var selectors: [LayerSelector] { [layers] + overrides.map(\.layers) }

  package var scales: ScaleChoice { .clip }
  package var weighsInputs: Bool { false }

  var calibratesInputs: Bool {
    ([activations] + overrides.compactMap(\.activations)).contains { $0.quantization?.needsCalibration == true }
  }

  func validateGrid() throws(InvalidOption) {
    func check(
      _ numbers: NumberFormat, _ bits: Int?, _ size: GroupSize?, _ symmetric: Bool, _ prefix: String
    ) throws(InvalidOption) {
      let allowed = numbers.bits.map { [$0] } ?? [2, 3, 4, 5, 6, 8]
      if let bits, !allowed.contains(bits) {
        throw InvalidOption(prefix + "bits", "\(bits): \(allowed.map(String.init).joined(separator: ", ")) are possible for \(numbers)")
      }
      if let size {
        guard size.isPositive else { throw InvalidOption(prefix + "group_size", "a positive number, auto, channel, tensor, or 128x128") }
        if let prescribed = numbers.groupSize, size != prescribed {
          throw InvalidOption(prefix + "group_size", "\(numbers.rawValue) has groups of its own size; leave group_size out")
        }
      }
      guard symmetric || numbers == .int else { throw InvalidOption(prefix + "symmetric", "\(numbers.rawValue) has no zero points") }
    }
    try check(numbers, bits, groupSize, symmetric, "")
    for (index, override) in overrides.enumerated() {
      let numbers = override.numbers ?? numbers
      let own = override.numbers == nil
      try check(
        numbers, override.bits ?? (own ? bits : nil), override.groupSize ?? (own ? groupSize : nil), override.symmetric ?? symmetric,
        "overrides[\(index)].")
    }
  }

  /// The scheme of a linear: the options, changed by every override that selects it, the last one winning.
  ///
  /// - Parameter columns: what its groups must divide.
  package func scheme(of name: String, isEnd: Bool, columns: Int...) -> QuantizationScheme {
    var (numbers, bits, size, symmetric) = (numbers, bits, groupSize, symmetric)
    for override in overrides where override.layers.contains(name, isEnd: isEnd) {
      if let other = override.numbers, other != numbers { (numbers, bits, size) = (other, nil, nil) }
      bits = override.bits ?? bits
      size = override.groupSize ?? size
      symmetric = override.symmetric ?? symmetric
    }
    switch numbers {
    case .int:
      return QuantizationScheme(
        bits: bits ?? 4, granularity: (size ?? 128).granularity(columns: columns),
        zeroPoint: symmetric ? .none : zeroPoint == .real ? .real : .integer)
    case .fp8: return QuantizationScheme(bits: 8, grid: .float, granularity: (size ?? .channel).granularity(columns: columns))
    case .mxfp4: return .mx(bits: 4)
    case .mxfp8: return .mx(bits: 8)
    case .nvfp4: return .nvfp4
    }
  }

  /// The scheme with scales of the type the output will have.
  ///
  /// - Throws: `InvalidOption` where the groups do not divide the columns.
  package func storedScheme(of name: LinearName, in part: any ModelPart) throws(InvalidOption) -> QuantizationScheme {
    let full = part.fullName(of: name)
    let columns = part[name].weight.columns
    var scheme = scheme(of: full, isEnd: part.isNamedOnly(name), columns: columns)
    if scheme.scaleType == .bfloat16 { scheme.scaleType = part[name].scaleType }
    guard scheme.fits(columns: columns) else {
      throw InvalidOption(
        "group_size",
        "\(scheme.groupSize(columns: columns)) does not divide the \(columns) columns of \(full); \(GroupSize.advice([columns]))")
    }
    return scheme
  }

  /// One for all linears of a group: runtimes fuse them.
  package func globalScale(of group: InputGroup, in part: any ModelPart) -> Float? {
    let members = group.linears.filter {
      scheme(of: part.fullName(of: $0), isEnd: part.isNamedOnly($0), columns: part[$0].weight.columns).hasGlobalScale
    }
    guard !members.isEmpty else { return nil }
    return ScaleSearch.globalScale(amax: members.map { part[$0].weight.dense().amax }.max()!)
  }

  func inputFormat(of name: String, isEnd: Bool) -> InputFormat {
    overrides.last { $0.activations != nil && $0.layers.contains(name, isEnd: isEnd) }?.activations ?? activations
  }

  /// Says how the inputs of a group's linears are quantized; their weights are done.
  func quantizeInputs(of group: InputGroup, in part: inout any ModelPart, _ context: PassContext) throws {
    // Token ids are not quantized.
    guard !(part is Embedding) else { return }
    var maximum: (amax: Float, isBorrowed: Bool)?
    for name in group.linears {
      guard var input = inputFormat(of: part.fullName(of: name), isEnd: part.isNamedOnly(name)).quantization else {
        // What the original's runtimes did to the input of a weight that is another now is no part of it.
        part[name].inputQuantization = nil
        continue
      }
      if input.needsCalibration {
        let found = try maximum ?? context.largestInput(of: group, in: part)
        maximum = found
        input = input.calibrated(amax: found.amax)
        if input.granularity == .tensor { input.scale = part[name].storageType.rounded(input.scale!) }
        context.record(name, in: part, ["input_maximum": Double(found.amax)])
        if found.isBorrowed {
          try context.recordFallback(
            name, in: part, "\(Unreached.reason): the scale of its input is for the largest inputs of all experts beside it")
        }
      }
      part[name].inputQuantization = input
    }
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    var scheme = scheme(of: linear.name, isEnd: linear.isEnd, columns: linear.columns, linear.rank ?? linear.columns)
    if scheme.scaleType == .bfloat16 { scheme.scaleType = linear.scaleType }
    if let rank = linear.rank { return try plan(factorsOf: linear, rank: rank, scheme) }
    guard scheme.fits(columns: linear.columns) else {
      throw InvalidOption(
        "group_size",
        "\(scheme.groupSize(columns: linear.columns)) does not divide the \(linear.columns) columns of \(linear.name); \(GroupSize.advice([linear.columns]))"
      )
    }
    var planned = linear
    planned.storedBits = scheme.storedBits(rows: linear.rows, columns: linear.columns)
    planned.scheme = scheme.description
    (planned.weights, planned.blocks) = (scheme, nil)
    planned.input =
      linear.role == .embedding ? nil : inputFormat(of: linear.name, isEnd: linear.isEnd).quantization
    return planned
  }
  public func remarks(on linears: [PlannedLinear]) -> [String] { automaticSizes(of: linears, as: Self.name) }

  /// How many linears `auto` gave which group size; nothing where no linear has it.
  ///
  /// - Parameter name: of the pass that the options are of, in recipes.
  package func automaticSizes(of linears: [PlannedLinear], as name: String) -> [String] {
    var counts: [Int?: Int] = [:]
    for linear in linears where layers.contains(linear.name, isEnd: linear.isEnd) {
      let named = overrides.last { $0.groupSize != nil && $0.layers.contains(linear.name, isEnd: linear.isEnd) }?.groupSize ?? groupSize
      guard named == .auto else { continue }
      counts[GroupSize.fitting([linear.columns, linear.rank ?? linear.columns]), default: 0] += 1
    }
    guard !counts.isEmpty else { return [] }
    func number(_ count: Int) -> String { count == 1 ? "1 linear" : "\(count) linears" }
    var parts = GroupSize.usual.compactMap { size in counts[size].map { "\(size) for \(number($0))" } }
    if let count = counts[nil] {
      let sizes = GroupSize.usual.map(String.init).joined(separator: ", ")
      parts.append("channel for \(number(count)), whose columns none of \(sizes) divides")
    }
    return ["\(name): group_size auto is " + parts.joined(separator: ", ")]
  }
}
