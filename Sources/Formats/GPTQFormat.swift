public import CheckpointIO
public import Models
public import StrictJSON
public import Tensors

/// The checkpoints of AutoGPTQ and GPTQModel, which vLLM and transformers load too: integers packed along the inputs, F16 scales.
///
/// Named after the tools, not the algorithm: any pass may have made the codes. Facts from AutoGPTQ 0.8 and GPTQModel 7.
public struct GPTQFormat: FamilyAwareFormat {
  public static let name = "gptq"
  public static let summary = "packed integers as GPTQModel, AutoGPTQ, vLLM and transformers load them"

  /// `checkpoint_format`: how zero points are stored.
  public enum Version: String, Sendable {
    /// Less one, so that a zero point of 0 has no spelling that all readers agree on.
    case v1 = "gptq"
    /// As they are.
    case v2 = "gptq_v2"
  }

  public var version = Version.v1

  /// What describes the models that are written.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public init(version: Version) { self.version = version }

  public var scaleType: DType? { .float16 }
  public var fusion: Fusion { .all }

  /// Version 2 where anything is asymmetric: few readers trust such zero points of version 1.
  public func settled(for modules: [StoredModule]) -> any CheckpointFormat {
    GPTQFormat(version: modules.contains { $0.scheme?.symmetric == false } ? .v2 : .v1)
  }

  /// Zero points are stored for symmetric weights too, and the group of every input.
  public func storedBits(_ weights: QuantizationScheme, input: InputQuantization?, rows: Int, columns: Int) -> Int {
    let shape = weights.scaleShape(rows: rows, columns: columns)
    return (rows * columns + shape.rows * shape.columns) * weights.bits + shape.rows * shape.columns * 16 + columns * 32
  }

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    func refusal(_ reason: String) -> FormatError { .cannotStore(module: module, format: Self.name, reason: reason) }
    try refuseRuntimeQuantization(of: linear, module: module)
    guard let weight = linear.weight as? QuantizedMatrix else { return [try dense(linear, module: module)] }
    try refuseTransposed(linear, module: module)
    if let reason = GPTQLayout.refusal(of: weight) { throw refusal(reason) }
    let zeros = weight.zeroCodes
    guard version == .v2 || !zeros.contains(0) else {
      throw refusal("a zero point of 0 needs version 2 of the format, and this file was begun in version 1")
    }
    guard weight.scales.elements.allSatisfy(\.isFinite) else { throw refusal(StoredTensors.scaleTooLarge) }
    guard let scales = StoredTensors.exactHalves(weight.scales.transposed()) else {
      throw refusal(
        "its \(weight.scheme.scaleType.rawValue) scales are not all F16 numbers; quantize into this format, which rounds them before")
    }
    return GPTQLayout.encode(weight, zeros: zeros, scales: scales, version, module: module)
  }

  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    try refuseCache(of: part)
    if part is Embedding { try refuseQuantized(part, because: PackedConfiguration.embeddingsStayDense) }
    return try encodeLinears(of: part) + vectors(of: part)
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let configuration = try GPTQConfiguration(reading: config) else { return nil }
    var reader = WeightReader(
      components: ["qweight", "qzeros", "scales", "g_idx"], holds: { module, source in source.info(module + ".qweight") != nil },
      weight: { module, source throws(CheckpointError) in
        try GPTQLayout.decode(module, source, try configuration.numbers(of: module), configuration.zeros)
      })
    reader.knowsAllComponents = configuration.isAutoRound
    return reader
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.withoutQuantization
    guard modules.contains(where: { $0.scheme != nil }) else { return json }
    json["quantization_config"] = try GPTQConfiguration.json(
      for: modules, version: version, names: ModuleNames(modules, in: config, architectures))
    return json
  }

  public func files(describing modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> [CheckpointFile] {
    let json = try configuration(of: modules, in: config)
    var files = [CheckpointFile("config.json", .text(json.text(indent: 2) + "\n"))]
    if let own = json["quantization_config"] { files.append(CheckpointFile("quantize_config.json", .text(own.text(indent: 2) + "\n"))) }
    return files
  }
}

extension CheckpointFormat where Self == GPTQFormat {
  public static var gptq: GPTQFormat { GPTQFormat() }
}
