public import CheckpointIO
public import Models
public import StrictJSON
public import Tensors

/// E4M3 weights with a scale for every tile of 128 × 128, and inputs that runtimes quantize by runs of 128 features: the form in which DeepSeek,
/// Qwen, MiniMax and others release their models, and which transformers, vLLM and SGLang load.
///
/// A module has `weight`, in E4M3, and `weight_scale_inv`, [⌈outputs / 128⌉ × ⌈inputs / 128⌉], by which the codes are multiplied (DeepSeek-AI 2024,
/// "DeepSeek-V3", section 3.3). Read are also other tiles, one scale for a matrix, and fixed scales of inputs (`activation_scale`), as Mistral has
/// them.
public struct FP8BlockFormat: FamilyAwareFormat {
  public static let name = "fp8-block"
  public static let summary = "E4M3 in tiles of 128 x 128 with quantized inputs, as vendors release their models"
  /// What describes the models that are written.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public var scaleType: DType? { .float32 }
  public var fusion: Fusion { .all }

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    func refusal(_ reason: String) -> FormatError { .cannotStore(module: module, format: Self.name, reason: reason) }
    guard let weight = linear.weight as? QuantizedMatrix else {
      let tensor = try dense(linear, module: module)
      guard linear.inputQuantization == nil else { throw refusal("its input is quantized but its weight is not") }
      return [tensor]
    }
    try refuseTransposed(linear, module: module)
    guard weight.scheme.grid == .float, weight.scheme.bits == 8, weight.globalScale == nil,
      case .block(let rows, let columns) = weight.scheme.granularity, rows == columns
    else { throw refusal("it holds E4M3 weights in square tiles, and these are \(weight.scheme)") }
    guard linear.inputQuantization == InputQuantization(bits: 8, grid: .float, granularity: .group(columns)) else {
      throw refusal("its runtimes quantize inputs to E4M3 by \(columns) features; say so with the scheme FP8_BLOCK")
    }
    let scales = weight.scales
    return [
      NamedTensor(
        name: module + ".weight", tensor: Tensor(dtype: .float8E4M3, shape: [weight.rows, weight.columns], integers: weight.codes)),
      NamedTensor(
        name: module + ".weight_scale_inv", tensor: Tensor(scales.elements, shape: [scales.rows, scales.columns], dtype: .float32)),
    ]
  }

  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    try refuseCache(of: part)
    if !(part is Block) { try refuseQuantized(part, because: AWQFormat.endsStayDense) }
    return try encodeLinears(of: part) + vectors(of: part)
  }

  public func remarks(on description: ModelDescription, in config: ModelConfig) throws(FormatError) -> [String] {
    func isCut(_ side: Int) -> Bool { side > 128 && side % 128 != 0 }
    let cut = description.blocks.flatMap { block in
      block.linearShapes.filter { isCut($0.value.rows) || isCut($0.value.columns) }.map { (block.prefix + $0.key.rawValue, $0.value) }
    }.sorted { $0.0 < $1.0 }
    guard let (name, shape) = cut.first else { return [] }
    return [
      "tiles of 128 do not divide \(cut.count) linears, such as \(name) [\(shape.rows) x \(shape.columns)]: the last ones are cut off, as vLLM and "
        + "SGLang read them; transformers without a GPU takes all tiles of a matrix to be equally large, and reads other numbers or none"
    ]
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.json["quantization_config"] ?? config.json["text_config"]?["quantization_config"],
      json["quant_method"]?.string?.lowercased() == "fp8"
    else { return nil }
    let configuration = try FP8BlockConfiguration(json)
    return WeightReader(
      components: ["weight", "weight_scale_inv", "activation_scale"],
      holds: { module, source in source.info(module + ".weight_scale_inv") != nil },
      weight: { module, source throws(CheckpointError) in try configuration.weight(module, source) },
      input: { module, source throws(CheckpointError) in try configuration.input(module, source) })
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.withoutQuantization
    guard modules.contains(where: { $0.scheme != nil }) else { return json }
    json["quantization_config"] = try FP8BlockConfiguration.json(for: modules, names: ModuleNames(modules, in: config, architectures))
    return json
  }
}
