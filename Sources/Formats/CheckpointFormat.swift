public import CheckpointIO
public import Foundation
public import Models
public import StrictJSON
public import Tensors

/// How weights are spelled in a checkpoint: the names, the packing, and what `config.json` says of them.
public protocol CheckpointFormat: Sendable {
  static var name: String { get }
  /// One line for `compress list formats`.
  static var summary: String { get }
  init()

  /// The tensors that store the weight of `module`.
  ///
  /// - Parameter storageType: what dense numbers are stored as in this checkpoint.
  /// - Throws: `FormatError.cannotStore` for a weight this format has no spelling for.
  func encode(_ weight: any Weight, module: String, storageType: DType) throws(FormatError) -> [NamedTensor]

  /// What reads the weights of a checkpoint whose configuration is in this format; `nil` for all others.
  func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader?

  /// `config.json` for the given weights.
  func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON

  func makeWriter(at directory: URL, shardLimit: Int, overwrite: Bool) throws(CheckpointError) -> any CheckpointWriter
}

extension CheckpointFormat {
  public func makeWriter(at directory: URL, shardLimit: Int, overwrite: Bool) throws(CheckpointError) -> any CheckpointWriter {
    try SafetensorsWriter(to: directory, shardLimit: shardLimit, overwrite: overwrite)
  }
}

/// What became of one linear or embedding: what a format needs to know to describe it.
public struct StoredModule: Sendable, Equatable {
  public var name: String
  /// `nil` where the weight is stored dense.
  public var scheme: QuantizationScheme?
  public var isEmbedding: Bool

  public init(name: String, scheme: QuantizationScheme?, isEmbedding: Bool = false) {
    self.name = name
    self.scheme = scheme
    self.isEmbedding = isEmbedding
  }
}

public enum FormatError: Error, Equatable, Sendable {
  /// `reason` says what about the weight the format has no room for.
  case cannotStore(module: String, format: String, reason: String)
}

extension FormatError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .cannotStore(let module, let format, let reason): "\(module) cannot be stored as \(format): \(reason)"
    }
  }
}

extension CheckpointFormat {
  /// All tensors of a block: weights as this format spells them, biases and norms as they came.
  public func encode(_ block: Block) throws(FormatError) -> [NamedTensor] {
    var tensors: [NamedTensor] = []
    for name in block.inputGroups.flatMap(\.linears) {
      let (linear, module) = (block[name], block.fullName(of: name))
      tensors += try encode(linear.weight, module: module, storageType: linear.storageType)
      if let bias = linear.bias {
        tensors.append(NamedTensor(name: module + ".bias", tensor: Tensor(bias, shape: [bias.count], dtype: linear.storageType)))
      }
    }
    for (name, norm) in block.norms.sorted(by: { $0.key < $1.key }) {
      let module = block.kind == .head ? name : block.prefix + name
      tensors.append(NamedTensor(name: module + ".weight", tensor: Tensor(norm, shape: [norm.count], dtype: block.storageType)))
    }
    return tensors
  }

  /// What `encode(_:)` will be asked to describe later.
  public func modules(of block: Block) -> [StoredModule] {
    block.inputGroups.flatMap(\.linears).map { name in
      StoredModule(
        name: block.fullName(of: name), scheme: (block[name].weight as? QuantizedMatrix)?.scheme, isEmbedding: block.kind == .embedding)
    }
  }

  /// The tensor of a dense weight, under its plain name.
  func plain(_ weight: any Weight, module: String, storageType: DType) -> NamedTensor {
    if let stored = weight as? StoredWeight { return NamedTensor(name: module + ".weight", tensor: stored.tensor) }
    let dense = weight.dense()
    return NamedTensor(
      name: module + ".weight", tensor: Tensor(dense.elements, shape: [dense.rows, dense.columns], dtype: storageType))
  }
}

/// The formats that can be read and written. A value: extended by `adding`, never by registration.
public struct FormatCatalog: Sendable {
  public let formats: [any CheckpointFormat]

  public init(_ formats: [any CheckpointFormat]) { self.formats = formats }

  /// The formats this package ships.
  public static let standard = FormatCatalog([CompressedTensorsFormat(), PlainFormat()])

  public func adding(_ more: any CheckpointFormat...) -> FormatCatalog { FormatCatalog(more + formats) }

  public var names: [String] { formats.map { type(of: $0).name } }

  public subscript(name: String) -> (any CheckpointFormat)? { formats.first { type(of: $0).name == name } }
}

extension Model {
  /// Opens a checkpoint, compressed or not.
  ///
  /// - Throws: `CheckpointError` where the configuration, the architecture or the tensors do not fit together.
  public init(
    _ checkpoint: Checkpoint, architectures: ArchitectureCatalog = .standard, formats: FormatCatalog = .standard
  ) throws(CheckpointError) {
    var readers: [WeightReader] = []
    for format in formats.formats {
      if let reader = try format.reader(for: checkpoint.config) { readers.append(reader) }
    }
    if readers.isEmpty, let quantization = checkpoint.config.json["quantization_config"], !quantization.isNull {
      throw .unsupportedOption(
        option: "quantization_config.quant_method", value: quantization["quant_method"]?.string ?? "(missing)",
        reason: "none of \(formats.names.joined(separator: ", ")) reads it")
    }
    try self.init(checkpoint, description: try architectures.describe(checkpoint.config), readers: readers)
  }
}
