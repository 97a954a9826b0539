public import CheckpointIO
public import Models
public import StrictJSON
import Tensors

/// The checkpoints of MLX (mlx-lm, mlx-swift): integers with a scale and a bias per group, MX floats, and quantized embeddings.
///
/// Facts from MLX 0.32 and mlx-lm 0.32.
public struct MLXFormat: CheckpointFormat {
  public static let name = "mlx"
  public static let summary = "integers with biases, and MX floats, as mlx-lm and mlx-swift load them"
  public init() {}

  public var fusion: Fusion { .experts }

  /// Integers always have biases; there is no scale of the whole matrix.
  public func storedBits(_ weights: QuantizationScheme, input: InputQuantization?, rows: Int, columns: Int) -> Int {
    let shape = weights.scaleShape(rows: rows, columns: columns)
    let perGroup = weights.scaleType.bitCount * (weights.grid == .integer ? 2 : 1)
    return rows * columns * weights.bits + shape.rows * shape.columns * perGroup
  }

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    try refuseRuntimeQuantization(of: linear, module: module)
    guard let weight = linear.weight as? QuantizedMatrix else { return [try dense(linear, module: module)] }
    try refuseTransposed(linear, module: module)
    return try MLXLayout.encode(weight, module: module)
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.json["quantization"], json.members != nil else { return nil }
    let configuration = try MLXConfiguration(json)
    return WeightReader(
      components: ["weight", "scales", "biases"], holds: { module, source in source.info(module + ".scales") != nil },
      weight: { module, source throws(CheckpointError) in
        try MLXLayout.decode(module, source, try configuration.numbers(of: module))
      })
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.withoutQuantization
    if let quantization = try MLXConfiguration.json(for: modules) {
      json["quantization"] = quantization
      json["quantization_config"] = quantization
    }
    return json
  }

  /// Mixtures whose experts mlx-lm 0.32 joins with their scales and biases; of others it joins the codes alone, and does not load the rest.
  private static let joined: Set = ["mixtral", "qwen2_moe", "olmoe", "glm4_moe", "dots1", "exaone_moe"]

  /// mlx-lm knows the windows of Gemma 3 and 4, and of the families it computes as Llama where at least one layer sees everything.
  ///
  /// - Throws: `FormatError.cannotStore` for mixers other than attention, which mlx-lm lays out in ways of its own, and for experts that it
  ///   would not load.
  public func remarks(on description: ModelDescription, in config: ModelConfig) throws(FormatError) -> [String] {
    for block in description.blocks {
      guard let other = block.mixers.first(where: { !($0 is AttentionDescription) }) else { continue }
      throw .cannotStore(
        module: block.prefix + other.module, format: Self.name,
        reason: "mlx-lm lays \(type(of: other).kind) out in a way of its own, which is not written here yet; safetensors and "
          + "compressed-tensors hold such models")
    }
    if let block = description.blocks.first(where: { $0.feedForward?.mixture != nil }), !Self.joined.contains(config.modelType) {
      throw .cannotStore(
        module: block.prefix + (block.feedForward?.mixture?.prefix.split(separator: ".").joined(separator: ".") ?? ""), format: Self.name,
        reason:
          "mlx-lm does not join packed experts of \(config.modelType) that are stored one by one, and its own stacks are not written here yet; "
          + "safetensors and compressed-tensors hold such models")
    }
    guard let window = description.blocks.compactMap(\.attention?.window).min() else { return [] }
    let isMixed = description.blocks.contains { $0.attention?.window == nil }
    let json = config.json["text_config"] ?? config.json
    let isKnown =
      config.modelType.hasPrefix("gemma3")
      ? json["sliding_window_pattern"] != nil
      : config.modelType.hasPrefix("gemma4") || ["mistral", "smollm3"].contains(config.modelType) && isMixed
    guard !isKnown else { return [] }
    return [
      "mlx-lm computes \(config.modelType) models without their sliding windows: up to \(window) tokens it makes no difference, beyond that its "
        + "predictions are not those scored here"
    ]
  }

  public func files(describing modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> [CheckpointFile] {
    [CheckpointFile("config.json", .text(try configuration(of: modules, in: config).sorted().text(indent: 4) + "\n"))]
  }

  public func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter {
    try SafetensorsWriter(into: stage, shardLimit: shardLimit, library: .mlx)
  }
}

extension CheckpointFormat where Self == MLXFormat {
  public static var mlx: MLXFormat { MLXFormat() }
}
