public import CheckpointIO
public import Models
public import StrictJSON
import Tensors

/// compressed-tensors, which vLLM and transformers load: packed integers, plain integers and E4M3 for quantized inputs, NVFP4 and MX.
///
/// The layouts are the library's compressors' of the same names: `pack-quantized`, `int-quantized`, `float-quantized`, `naive-quantized`,
/// `nvfp4-pack-quantized`, `mxfp4-pack-quantized`, `mxfp8-quantized`; see `CompressedTensorsLayout`.
public struct CompressedTensorsFormat: FamilyAwareFormat {
  public static let name = "compressed-tensors"
  public static let summary = "quantized weights, inputs and caches as vLLM and transformers load them"
  /// The library version whose files ours are byte-equal to.
  static let version = "0.20.0"
  /// What describes the models that are written.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public var storesFactors: Bool { true }
  public var fusion: Fusion { .all }

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    guard let quantized = linear.weight as? QuantizedMatrix else {
      let tensor = try dense(linear, module: module)
      if linear.inputQuantization != nil {
        throw .cannotStore(module: module, format: Self.name, reason: "its input is quantized but its weight is not")
      }
      return [tensor]
    }
    try refuseTransposed(linear, module: module)
    guard let layout = CompressedTensorsLayout(weights: quantized.scheme, input: linear.inputQuantization) else {
      throw .cannotStore(module: module, format: Self.name, reason: "no runtime knows \(quantized.scheme) weights")
    }
    guard quantized.columnGroups == nil else {
      throw .cannotStore(
        module: module, format: Self.name, reason: "groups scattered by activation order are no longer read by its library")
    }
    guard quantized.scheme.grid == .float || [.bfloat16, .float16, .float32].contains(quantized.scheme.scaleType) else {
      throw .cannotStore(module: module, format: Self.name, reason: "scales of \(quantized.scheme.scaleType.rawValue)")
    }
    var tensors = layout.encode(quantized, module: module)
    if let input = linear.inputQuantization, input.needsCalibration {
      guard let scale = input.scale else {
        throw .cannotStore(module: module, format: Self.name, reason: "the scale of its input was never calibrated")
      }
      let isGlobal = input.scaleType == .float8E4M3
      tensors.append(
        NamedTensor(
          name: module + (isGlobal ? ".input_global_scale" : ".input_scale"),
          tensor: Tensor([scale], shape: [1], dtype: isGlobal ? .float32 : linear.storageType)))
    }
    return tensors
  }

  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    var tensors = try encodeLinears(of: part)
    if let block = part as? Block, let cache = block.cache {
      let (heads, type) = (block.description.heads, block.norms.storageType)
      for (name, scale) in [("k_scale", cache.key), ("v_scale", cache.value)] {
        let module = "\(block.prefix)\(heads?.module ?? "self_attn")"
        if let scales = scale.headScales, let count = heads?.keyValues, scales.count != count {
          throw .cannotStore(module: module, format: Self.name, reason: "\(scales.count) scales of cached heads for \(count) heads")
        }
        let tensor =
          scale.headScales.map { Tensor($0, shape: [$0.count, 1, 1], dtype: type) } ?? Tensor([scale.scale], shape: [1], dtype: type)
        tensors.append(NamedTensor(name: "\(module).\(name)", tensor: tensor))
      }
    }
    return tensors + vectors(of: part)
  }

  /// Weights of fewer bits beside quantized inputs lie in whole bytes.
  public func storedBits(_ weights: QuantizationScheme, input: InputQuantization?, rows: Int, columns: Int) -> Int {
    let spare = CompressedTensorsLayout(weights: weights, input: input) == .integers ? (8 - weights.bits) * rows * columns : 0
    return weights.storedBits(rows: rows, columns: columns) + spare
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.json["quantization_config"], json["quant_method"]?.string == "compressed-tensors" else { return nil }
    if let layout = try SparseBitmaskLayout(json) { return layout.reader }
    let configuration = try CompressedTensorsConfiguration(json)
    return WeightReader(
      components: CompressedTensorsLayout.components,
      holds: { module, source in
        source.info(module + ".weight_scale") != nil || source.info(module + ".weight_packed") != nil
      },
      weight: { module, source throws(CheckpointError) in
        try CompressedTensorsLayout.decode(module, source, try configuration.preset(of: module).weights)
      },
      input: { module, source throws(CheckpointError) in
        guard var input = try configuration.preset(of: module).input else { return nil }
        guard input.needsCalibration else { return input }
        let name = module + (input.scaleType == .float8E4M3 ? ".input_global_scale" : ".input_scale")
        input.scale = try Self.number(name, source)
        return input
      },
      cache: { attention, source throws(CheckpointError) in
        guard let cache = configuration.cache else { return nil }
        func scale(_ name: String) throws(CheckpointError) -> CacheScale {
          cache.isByHead
            ? CacheScale(grid: cache.grid, headScales: try Self.numbers("\(attention).\(name)", source))
            : CacheScale(grid: cache.grid, scale: try Self.number("\(attention).\(name)", source))
        }
        return CacheQuantization(key: try scale("k_scale"), value: try scale("v_scale"))
      })
  }

  /// A tensor of one positive number.
  static func number(_ name: String, _ source: any TensorSource) throws(CheckpointError) -> Float {
    let values = try numbers(name, source)
    guard values.count == 1 else { throw .wrongShape(tensor: name, expected: [1], found: source.info(name)?.shape ?? []) }
    return values[0]
  }

  /// A tensor of positive numbers, at least one.
  private static func numbers(_ name: String, _ source: any TensorSource) throws(CheckpointError) -> [Float] {
    let tensor = try source.tensor(name)
    guard tensor.dtype.isReadableAsFloat else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "a scale") }
    let values = tensor.floats()
    guard !values.isEmpty else { throw .wrongShape(tensor: name, expected: [1], found: tensor.shape) }
    guard values.allSatisfy({ $0.isFinite && $0 > 0 }) else { throw .nonfiniteWeight(tensor: name) }
    return values
  }

  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    var json = config.withoutQuantization
    let caches = modules.compactMap(\.cache)
    guard modules.contains(where: { $0.scheme != nil }) || !caches.isEmpty else {
      json["quantization_config"] = LowRankConfiguration.json(for: modules, weights: nil)
      return json
    }
    // Families differ in what they take where the configuration does not say.
    let description = try? architectures.describe(config)
    let head = description?.ownHead ?? "lm_head"
    let isTied = description.map(\.isTied) ?? ((config.decoder["tie_word_embeddings"] ?? json["tie_word_embeddings"])?.bool == true)
    let tied = isTied && !modules.contains { $0.name == head }
    // transformers calls every head so while it runs.
    let isDense = !modules.contains { $0.name == head && $0.scheme != nil }
    if tied, let embedding = modules.first(where: { $0.isEmbedding && $0.scheme != nil }) {
      throw .cannotStore(
        module: embedding.name, format: Self.name,
        reason: "the head is tied to it and runtimes expect that matrix dense; leave the embedding out of the pass's layers")
    }
    let quantization = CompressedTensorsConfiguration.json(
      for: modules, ignoring: tied || head != "lm_head" && isDense ? ["lm_head"] : [],
      cache: caches.first.map { (grid: $0.key.grid, isByHead: $0.key.headScales != nil) },
      names: ModuleNames(modules, in: config, architectures))
    json["quantization_config"] = LowRankConfiguration.json(for: modules, weights: quantization) ?? quantization
    return json
  }
}

extension CheckpointFormat where Self == CompressedTensorsFormat {
  public static var compressedTensors: CompressedTensorsFormat { CompressedTensorsFormat() }
}
