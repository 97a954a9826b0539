public import CheckpointIO
internal import Foundation
public import Models
public import StrictJSON
import Tensors

/// One GGUF file, for llama.cpp and what is built on it.
///
/// Weights of the pass `ggml` are stored as they are; integer codes whose groups and scales a block type can hold exactly become that
/// type; dense weights stay in their floats. Norms and biases are F32, as llama.cpp wants them. Files of Llama, Mistral, Qwen2 and Qwen3
/// models are also read. Whatever of a model llama.cpp would compute otherwise is refused, sliding windows among it, which
/// it does not have in these families: what would be written is read back and compared before anything is (`GGUFReadback`,
/// `GGUFTokenizerCheck`).
public struct GGUFFormat: FamilyAwareFormat {
  public static let name = "gguf"
  public static let summary = "one GGUF file with ggml's block types: llama.cpp, ollama"
  /// What describes the models that are written.
  public var architectures = ArchitectureCatalog.standard
  public init() {}

  public var storesBlocks: Bool { true }

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

  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    try refuseCache(of: part)
    let vectors = vectors(of: part).map { NamedTensor(name: $0.name, tensor: $0.tensor.asFloat32()) }
    return try encodeLinears(of: part).map { $0.tensor.shape.count == 1 ? NamedTensor(name: $0.name, tensor: $0.tensor.asFloat32()) : $0 }
      + vectors
  }

  /// Types that ggml does not compute with become F32.
  private func asFloats(_ named: NamedTensor) -> NamedTensor {
    BlockType(named.tensor.dtype) == nil ? NamedTensor(name: named.name, tensor: named.tensor.asFloat32()) : named
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
    if let nameless = modules.first(where: { GGUFNames.gguf(of: $0.name + ".weight") == nil }) {
      throw .cannotStore(module: nameless.name, format: Self.name, reason: "GGUF has no name for it in a model like Llama")
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
