public import CheckpointIO
public import Models
public import StrictJSON
public import Tensors

/// The checkpoints of AutoAWQ in their `gemm` layout, which vLLM and transformers load too: 4 bits, packed along the outputs, F16 scales.
///
/// Named after the tool, not the algorithm: any pass may have made the codes. Facts from AutoAWQ 0.2.9.
public struct AWQFormat: FamilyAwareFormat {
  public static let name = "awq"
  public static let summary = "4-bit integers in AutoAWQ's gemm layout, as vLLM and transformers load them"
  /// What describes the models that are written.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public var scaleType: DType? { .float16 }
  public var fusion: Fusion { .all }

  /// Zero points are stored for symmetric weights too.
  public func storedBits(_ weights: QuantizationScheme, input: InputQuantization?, rows: Int, columns: Int) -> Int {
    let shape = weights.scaleShape(rows: rows, columns: columns)
    return (rows * columns + shape.rows * shape.columns) * weights.bits + shape.rows * shape.columns * 16
  }

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    func refusal(_ reason: String) -> FormatError { .cannotStore(module: module, format: Self.name, reason: reason) }
    try refuseRuntimeQuantization(of: linear, module: module)
    guard let weight = linear.weight as? QuantizedMatrix else { return [try dense(linear, module: module)] }
    try refuseTransposed(linear, module: module)
    if let reason = AWQLayout.refusal(of: weight) { throw refusal(reason) }
    guard weight.scales.elements.allSatisfy(\.isFinite) else { throw refusal(StoredTensors.scaleTooLarge) }
    guard let scales = StoredTensors.exactHalves(weight.scales.transposed()) else {
      throw refusal(
        "its \(weight.scheme.scaleType.rawValue) scales are not all F16 numbers; quantize into this format, which rounds them before")
    }
    return AWQLayout.encode(weight, scales: scales, module: module)
  }

  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    try refuseCache(of: part)
    if !(part is Block) { try refuseQuantized(part, because: Self.endsStayDense) }
    return try encodeLinears(of: part) + vectors(of: part)
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let configuration = try AWQConfiguration(reading: config) else { return nil }
    return WeightReader(
      components: ["qweight", "qzeros", "scales"], holds: { module, source in source.info(module + ".qweight") != nil },
      weight: { module, source throws(CheckpointError) in
        // Scales of the activation before a linear, which AutoAWQ wraps where there is no norm to fold them into.
        let folded = module.split(separator: ".").dropLast().joined(separator: ".") + ".act.scales"
        guard source.info(folded) == nil else {
          throw .unsupportedOption(option: folded, value: "present", reason: "scaled activation functions are not read")
        }
        return try AWQLayout.decode(module, source, groupSize: configuration.groupSize, configuration.version)
      })
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.withoutQuantization
    guard modules.contains(where: { $0.scheme != nil }) else { return json }
    json["quantization_config"] = try AWQConfiguration.json(for: modules, names: ModuleNames(modules, in: config, architectures))
    return json
  }
}

extension CheckpointFormat where Self == AWQFormat {
  public static var awq: AWQFormat { AWQFormat() }
}

extension AWQFormat {
  static let endsStayDense = "its readers know no quantized embedding or head; leave them out of the pass's layers"
}
