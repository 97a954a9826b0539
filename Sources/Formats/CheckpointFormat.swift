public import CheckpointIO
public import Models
public import StrictJSON
public import Tensors

/// How weights are spelled in a checkpoint: the names, the packing, and what `config.json` says of them.
public protocol CheckpointFormat: Sendable {
  static var name: String { get }
  /// One line for `compress list formats`.
  static var summary: String { get }
  init()

  /// What its runtimes want integer scales rounded to; `nil` for the type each weight is stored in.
  var scaleType: DType? { get }

  /// Whether it takes tensors of any name, of whatever model.
  var holdsAnyTensors: Bool { get }

  /// Whether a linear may be stored as the two factors of its weight.
  var storesFactors: Bool { get }

  /// Whether ggml's blocks are stored as they are; others write what comes in blocks as the numbers they stand for.
  var storesBlocks: Bool { get }

  /// Whether compressed experts that a family's checkpoints store together are read where this format puts them; otherwise they are stored one by
  /// one, which not all runtimes look for.
  var joinsExperts: Bool { get }

  /// Which linears its runtimes compute as one and want in one format.
  var fusion: Fusion { get }

  /// This format with everything settled that depends on all weights at once; by default nothing does.
  ///
  /// - Parameter modules: as far as they are known before the first weight is written.
  func settled(for modules: [StoredModule]) -> any CheckpointFormat

  /// The tensors that store a linear under the name of its module; its bias excepted.
  ///
  /// - Throws: `FormatError.cannotStore` for a weight, or a quantized input, that this format has no spelling for.
  func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor]

  /// The same format among families of models other than those of this package; by default unchanged, as most read nothing of a configuration
  /// but what they write.
  func knowing(_ architectures: ArchitectureCatalog) -> any CheckpointFormat

  /// Bits that quantized weights of a shape take in this format; by default those they have.
  func storedBits(_ weights: QuantizationScheme, input: InputQuantization?, rows: Int, columns: Int) -> Int

  /// All tensors of a part of a model; by default its linears one by one, biases and norms as they came.
  func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor]

  /// What reads the weights of a checkpoint whose configuration is in this format; `nil` for all others.
  func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader?

  /// What its runtimes are known to compute otherwise, where that concerns few inputs, or although the files say it; for the report. By default
  /// nothing. Asked once, before anything is written.
  ///
  /// - Throws: `FormatError.cannotStore` where they would compute otherwise what many inputs give.
  func remarks(on description: ModelDescription, in config: ModelConfig) throws(FormatError) -> [String]

  /// `config.json` for the given weights.
  func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON

  /// `config.json` as text, and what else describes the weights; by default nothing else.
  func files(describing modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> [CheckpointFile]

  /// - Parameters:
  ///   - stage: the directory that the checkpoint is written into.
  ///   - shardLimit: bytes of tensors in a file, where there may be several.
  func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter
}

extension CheckpointFormat {
  public func storedBits(_ weights: QuantizationScheme, input: InputQuantization?, rows: Int, columns: Int) -> Int {
    weights.storedBits(rows: rows, columns: columns)
  }

  public var scaleType: DType? { nil }

  public func remarks(on description: ModelDescription, in config: ModelConfig) throws(FormatError) -> [String] { [] }

  public var holdsAnyTensors: Bool { false }
  public var storesBlocks: Bool { false }
  public var joinsExperts: Bool { false }
  public var fusion: Fusion { .none }

  /// Runtimes multiply by one matrix.
  public var storesFactors: Bool { false }

  public func settled(for modules: [StoredModule]) -> any CheckpointFormat { self }

  public func knowing(_ architectures: ArchitectureCatalog) -> any CheckpointFormat { self }

  public func files(describing modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> [CheckpointFile] {
    [CheckpointFile("config.json", .text(try configuration(of: modules, in: config).text(indent: 2) + "\n"))]
  }

  public func makeWriter(into stage: StagedDirectory, shardLimit: Int) throws(CheckpointError) -> any CheckpointWriter {
    try SafetensorsWriter(into: stage, shardLimit: shardLimit)
  }
}

/// Which linears runtimes compute as one, so that unlike formats among them cannot be loaded.
public enum Fusion: Sendable {
  case none
  /// Every projection over all experts of a mixture.
  case experts
  /// Queries with keys and values, gates with what they gate, and all experts of all mixtures: vLLM runs a mixture in one format, and
  /// transformers reads those of all mixtures as one.
  case all
}

/// What became of one linear or embedding: what a format needs to know to describe it.
public struct StoredModule: Sendable, Equatable {
  public var name: String
  /// `nil` where the weight is stored dense.
  public var scheme: QuantizationScheme?
  /// How its input is quantized.
  public var input: InputQuantization?
  public var isEmbedding: Bool
  /// Whether its groups are scattered over the columns.
  public var hasColumnGroups: Bool
  /// For the output factor of a linear that is stored as two: what the linear is.
  public var factors: StoredFactors?
  /// For one linear of every decoder block: how the block's keys and values are cached.
  public var cache: CacheQuantization?

  public init(
    name: String, scheme: QuantizationScheme?, input: InputQuantization? = nil, isEmbedding: Bool = false, hasColumnGroups: Bool = false,
    cache: CacheQuantization? = nil
  ) {
    self.name = name
    self.scheme = scheme
    self.input = input
    self.isEmbedding = isEmbedding
    self.hasColumnGroups = hasColumnGroups
    self.cache = cache
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
  public func encode(_ part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    try refuseCache(of: part)
    return try encodeLinears(of: part) + vectors(of: part)
  }

  /// Linears one by one as the format spells them, and their biases; dense experts in stacks, where the family stores them so.
  func encodeLinears(of part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    var tensors: [NamedTensor] = []
    var stacked = Set<LinearName>()
    if let block = part as? Block {
      for stack in block.denseStacks(writingAll: self is any DenseFormat) {
        stacked.formUnion(stack.linears.joined())
        let type = block.storageType(of: stack)
        tensors.append(
          NamedTensor(name: block.prefix + stack.name, dtype: type, shape: stack.shape) { block.matrix(of: $0, in: stack, as: type) })
        if let name = stack.biasName, let biases = block.biases(of: stack) {
          tensors.append(NamedTensor(name: block.prefix + name, tensor: biases))
        }
      }
    }
    for name in part.inputGroups.flatMap(\.linears) where !stacked.contains(name) {
      let (linear, module) = (part[name], part.fullName(of: name))
      tensors += linear.weight is FactoredWeight ? try encodeFactors(of: name, in: part) : try encode(linear, module: module)
      if let bias = linear.bias {
        tensors.append(NamedTensor(name: module + ".bias", tensor: Tensor(bias, shape: [bias.count], dtype: linear.storageType)))
      }
    }
    return tensors
  }

  /// Norms, and what else there is besides linears.
  func vectors(of part: any ModelPart) -> [NamedTensor] {
    let (norms, type) = (part.norms, part.norms.storageType)
    var tensors: [NamedTensor] = []
    for name in norms.weights.keys.sorted() {
      let (module, weight) = (part.fullName(ofNorm: name), norms.stored(name))
      tensors.append(
        NamedTensor(name: part.weightName(ofNorm: name), tensor: Tensor(weight, shape: [weight.count], dtype: type)))
      guard let bias = norms.biases[name] else { continue }
      tensors.append(NamedTensor(name: module + ".bias", tensor: Tensor(bias, shape: [bias.count], dtype: type)))
    }
    return tensors + part.otherTensors.map { NamedTensor(name: $0.name, tensor: $0.tensor) }
  }

  /// - Throws: for what the runtimes of most formats have no notion of: quantized inputs, and a cache with scales.
  func refuseRuntimeQuantization(of linear: Linear, module: String) throws(FormatError) {
    if let input = linear.inputQuantization {
      throw .cannotStore(module: module, format: Self.name, reason: "its input is quantized (\(input)), which this format cannot say")
    }
  }

  /// - Throws: for families whose modules hold matrices the other way round. Runtimes replace linears by their packed kind and leave those
  /// modules as they are, with weights that nobody set.
  func refuseTransposed(_ linear: Linear, module: String) throws(FormatError) {
    if linear.storesTransposed {
      throw .cannotStore(
        module: module, format: Self.name,
        reason: "runtimes have no packed kind of this family's transposed modules; format safetensors stores the rounded weights dense")
    }
  }

  func refuseCache(of part: any ModelPart) throws(FormatError) {
    guard (part as? Block)?.cache == nil else {
      throw .cannotStore(module: part.name, format: Self.name, reason: "its cache has scales, which this format cannot say")
    }
  }

  /// What `encode(_:)` will be asked to describe later.
  public func modules(of part: any ModelPart) -> [StoredModule] {
    part.inputGroups.flatMap(\.linears).enumerated().flatMap { index, name -> [StoredModule] in
      let quantized = part[name].weight as? QuantizedMatrix
      var modules = factorModules(of: name, in: part)
      if modules.isEmpty {
        modules = [
          StoredModule(
            name: part.fullName(of: name), scheme: quantized?.scheme, input: part[name].inputQuantization,
            isEmbedding: part is Embedding, hasColumnGroups: quantized?.columnGroups != nil)
        ]
      }
      if index == 0 { modules[0].cache = (part as? Block)?.cache }
      return modules
    }
  }

  /// The tensor of a weight that is not quantized, in a format that has a spelling for those.
  func dense(_ linear: Linear, module: String) throws(FormatError) -> NamedTensor {
    guard linear.weight is StoredWeight || linear.weight is Matrix else {
      throw .cannotStore(module: module, format: Self.name, reason: noSpelling(for: linear.weight))
    }
    return plain(linear, module: module)
  }

  /// Why a weight that is neither dense nor quantized as this package knows it cannot be stored.
  func noSpelling(for weight: any Weight) -> String {
    if let blocks = weight as? BlockQuantizedMatrix {
      return
        "it comes in ggml's blocks (\(blocks.type.name)), which only GGUF holds; format safetensors takes the numbers, and a recipe's passes make "
        + "others of them"
    }
    if weight is SumOfWeights {
      return "it is codes with a low-rank correction beside them, which the format has no room for; format safetensors takes the sum"
    }
    guard let foreign = weight as? ForeignWeight else { return "there is no spelling for a \(type(of: weight))" }
    return
      "it comes as \(foreign.form), which only the library that made it holds; format safetensors takes the numbers, and a recipe's passes make "
      + "others of them"
  }

  /// The tensor of a dense weight, under its plain name.
  func plain(_ linear: Linear, module: String) -> NamedTensor {
    if let stored = linear.weight as? StoredWeight, stored.liesInRows != linear.storesTransposed {
      return NamedTensor(name: module + ".weight", tensor: stored.tensor)
    }
    let dense = linear.storesTransposed ? linear.weight.dense().transposed() : linear.weight.dense()
    return NamedTensor(
      name: module + ".weight", tensor: Tensor(dense.elements, shape: [dense.rows, dense.columns], dtype: linear.storageType))
  }
}

/// The formats that can be read and written. A value: extended by `adding`, never by registration.
public struct FormatCatalog: Sendable {
  public let formats: [any CheckpointFormat]

  public init(_ formats: [any CheckpointFormat]) { self.formats = formats }

  /// The formats this package ships.
  public static let standard = FormatCatalog([
    CompressedTensorsFormat(), GPTQFormat(), AWQFormat(), FP8BlockFormat(), MXFP4Format(), MLXFormat(), GGUFFormat(), PlainFormat(),
    NumpyFormat(), HDF5Format(), KerasFormat(),
    BitsAndBytesFormat(), ModelOptFormat(), HQQFormat(), QuantoFormat(), TorchAOFormat(),
  ])

  public func adding(_ more: any CheckpointFormat...) -> FormatCatalog { FormatCatalog(more + formats) }

  public var names: [String] { formats.map { type(of: $0).name } }

  public subscript(name: String) -> (any CheckpointFormat)? { formats.first { type(of: $0).name == name } }
}

extension ModelConfig {
  /// What is left when no weight is quantized.
  var withoutQuantization: JSON {
    var json = json
    json["quantization_config"] = nil
    // MLX's name for it.
    json["quantization"] = nil
    if var text = json["text_config"], text["quantization_config"] != nil {
      text["quantization_config"] = nil
      json["text_config"] = text
    }
    return json
  }
}

extension Model {
  /// Opens a checkpoint, compressed or not.
  ///
  /// - Throws: `CheckpointError` where the configuration, the architecture or the tensors do not fit together.
  public init(
    _ checkpoint: Checkpoint, architectures: ArchitectureCatalog = .standard, formats: FormatCatalog = .standard
  ) throws(CheckpointError) {
    let factored = try LowRankConfiguration(checkpoint.config)
    let config = factored?.inner ?? checkpoint.config
    var reader: WeightReader?
    for format in formats.formats where reader == nil { reader = try format.knowing(architectures).reader(for: config) }
    if reader == nil, let quantization = config.json["quantization_config"], !quantization.isNull {
      throw .unsupportedOption(
        option: "quantization_config.quant_method", value: quantization["quant_method"]?.string ?? "(missing)",
        reason: "none of \(formats.names.joined(separator: ", ")) reads it")
    }
    if let factored { reader = factored.reader(over: reader) }
    let model = try Model(checkpoint, description: try architectures.describe(checkpoint.config), reader: reader)
    self = try model.withCachePolicies(in: checkpoint.directory)
  }
}
