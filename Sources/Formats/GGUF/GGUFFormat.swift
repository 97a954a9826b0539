public import CheckpointIO
internal import Foundation
public import Models
public import StrictJSON
import Tensors

/// One GGUF file, for llama.cpp and what is built on it.
///
/// Weights of the pass `ggml` are stored as they are; integer codes whose groups and scales a block type can hold exactly become that
/// type; dense weights stay in their floats. Norms and biases are F32, as llama.cpp wants them. Families are those of `GGUFArchitecture.all`,
/// and files of them are also read. Whatever of a model llama.cpp would compute otherwise is refused, such as sliding windows in families whose
/// layout has none: what would be written is read back and compared before anything is (`GGUFReadback`, `GGUFTokenizerCheck`).
public struct GGUFFormat: FamilyAwareFormat {
  public static let name = "gguf"
  public static let summary = "one GGUF file with ggml's block types: llama.cpp, ollama"
  /// What describes the models that are written.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public var storesBlocks: Bool { true }
  public var joinsExperts: Bool { true }

  public func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
    try refuseRuntimeQuantization(of: linear, module: module)
    let blocks: BlockQuantizedMatrix
    switch linear.weight {
    case let weight as BlockQuantizedMatrix: blocks = weight
    case let weight as QuantizedMatrix:
      switch weight.asBlocks() {
      case .success(let weight): blocks = weight
      case .failure(let misfit): throw .cannotStore(module: module, format: Self.name, reason: misfit.reason)
      }
    case is StoredWeight, is Matrix: return [asFloats(plain(linear, module: module))]
    default: throw .cannotStore(module: module, format: Self.name, reason: noSpelling(for: linear.weight))
    }
    let name = module + ".weight"
    guard let dtype = blocks.type.dtype else { return [NamedTensor(name: name, tensor: blocks.blocks, blocks: blocks.type)] }
    return [NamedTensor(name: name, tensor: Tensor(dtype: dtype, shape: [blocks.rows, blocks.columns], bytes: blocks.blocks.bytes))]
  }

  /// Linears one by one, experts too, as [outputs × inputs] whatever the family's checkpoints have; norms with the offset that the family stores
  /// them without.
  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    try refuseCache(of: part)
    var tensors: [NamedTensor] = []
    let routers = Set((part as? Block)?.description.feedForward?.mixture?.routers ?? [])
    for name in part.inputGroups.flatMap(\.linears) {
      let (linear, module) = (part[name], part.fullName(of: name))
      guard !(linear.weight is FactoredWeight) else {
        tensors += try encodeFactors(of: name, in: part)
        continue
      }
      let plain = Linear(weight: linear.weight, storageType: linear.storageType, inputQuantization: linear.inputQuantization)
      tensors += try encode(plain, module: module).map { routers.contains(name) && $0.blocks == nil ? asSinglePrecision($0) : $0 }
      if let bias = linear.bias { tensors.append(vector(module + ".bias", bias)) }
    }
    for name in part.norms.weights.keys.sorted() {
      let module = part.fullName(ofNorm: name)
      tensors.append(vector(part.weightName(ofNorm: name), part.norms.weights[name] ?? []))
      if let bias = part.norms.biases[name] { tensors.append(vector(module + ".bias", bias)) }
    }
    return tensors + part.otherTensors.map { NamedTensor(name: $0.name, tensor: $0.tensor.asFloat32()) }
  }

  private func vector(_ name: String, _ values: [Float]) -> NamedTensor {
    NamedTensor(name: name, tensor: Tensor(values, shape: [values.count], dtype: .float32))
  }

  private func asSinglePrecision(_ named: NamedTensor) -> NamedTensor { NamedTensor(name: named.name, tensor: named.tensor.asFloat32()) }

  /// Types that ggml does not compute with become F32.
  private func asFloats(_ named: NamedTensor) -> NamedTensor {
    BlockType(named.tensor.dtype) == nil ? asSinglePrecision(named) : named
  }

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard config.json["quantization_config"]?["quant_method"]?.string == Self.name else { return nil }
    return WeightReader(
      components: ["weight"], holds: { module, source in source.info(module + ".weight")?.blocks != nil },
      weight: { module, source throws(CheckpointError) in
        let name = module + ".weight"
        guard let type = source.info(name)?.blocks else { throw .missingTensor(name: name) }
        return BlockQuantizedMatrix(type, blocks: try source.tensor(name))
      })
  }

  /// Also checks that all of the file's metadata can be made, and that it says all of the model; the texts of `remarks` are not tried again.
  public func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
    let layouts = GGUFArchitecture.layouts(of: config.modelType)
    if !layouts.isEmpty,
      let nameless = modules.first(where: { module in layouts.allSatisfy { $0.names.place(of: module.name + ".weight") == nil } })
    {
      throw .cannotStore(module: nameless.name, format: Self.name, reason: "GGUF has no name for it in a model of type \(config.modelType)")
    }
    _ = try description(config)
    return config.withoutQuantization
  }

  public func remarks(on model: ModelDescription, in config: ModelConfig) throws(FormatError) -> [String] {
    try description(config).remarks()
  }

  private func description(_ config: ModelConfig) throws(FormatError) -> GGUFDescription {
    let place = URL(filePath: config.path)
    let directory = place.deletingLastPathComponent()
    var inside: [CheckpointFile] = []
    if place.pathExtension == "gguf" {
      do { inside = try GGUFFile(place).tokenizerFiles() } catch {
        throw .cannotStore(module: "the model", format: Self.name, reason: "\(error)")
      }
    }
    return try GGUFDescription(config, architectures, name: "") { name in
      if let file = inside.first(where: { $0.name == name }), case .text(let text) = file.content { return Data(text.utf8) }
      return try? Data(contentsOf: directory.appending(path: name))
    }
  }

  public func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter {
    try GGUFWriter(into: stage) { [architectures] tensors, files throws(CheckpointError) in
      func data(_ name: String) -> Data? {
        switch files.first(where: { $0.name == name })?.content {
        case .text(let text): Data(text.utf8)
        case .copy(let source): try? Data(contentsOf: source)
        case nil: nil
        }
      }
      guard let text = data("config.json") else { throw .missingFile(path: "config.json") }
      let config = try ModelConfig(text: text)
      do {
        let name = config.json["_name_or_path"]?.string?.split(separator: "/").last.map(String.init)
        return try GGUFDescription(config, architectures, name: name ?? config.modelType, file: data).layOut(tensors)
      } catch let error as CheckpointError { throw error } catch {
        throw .unsupportedOption(option: "output.format", value: Self.name, reason: "\(error)")
      }
    }
  }
}

extension Tensor {
  fileprivate func asFloat32() -> Tensor { dtype == .float32 ? self : Tensor(floats(), shape: shape, dtype: .float32) }
}

extension CheckpointFormat where Self == GGUFFormat {
  public static var gguf: GGUFFormat { GGUFFormat() }
}
