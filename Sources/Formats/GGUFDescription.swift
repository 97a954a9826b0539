import CheckpointIO
import Foundation
import Models
import StrictJSON
import Tensors
import Tokenizers

/// What a GGUF file says of a model besides its weights: metadata, names, order, and the factors of its rotary frequencies.
struct GGUFDescription {
  /// llama.cpp's architecture of a `model_type`.
  private static let layouts = ["llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"]

  private let architecture: String
  private let model: ModelDescription
  private let metadata: GGUFMetadata
  /// What the rotary frequencies are divided by, where that takes more than one number.
  private let rotaryFactors: [Float]?
  /// What the vocabulary was made of; `nil` for weights alone.
  private let vocabulary: (source: TokenizerSource, tokenizer: Tokenizer)?

  /// - Parameters:
  ///   - config: `config.json` as it will be written.
  ///   - architectures: what describes it, and what a reader of the file would make of it.
  ///   - file: the text of a file that will lie beside it; `nil` where there is none.
  ///   - name: what `general.name` says.
  /// - Throws: `FormatError.cannotStore` for what llama.cpp would compute differently or could not read.
  init(_ config: ModelConfig, _ architectures: ArchitectureCatalog, name: String, file: (String) -> Data?) throws(FormatError) {
    func refuse(_ reason: String) -> FormatError { .cannotStore(module: "the model", format: GGUFFormat.name, reason: reason) }
    guard let architecture = Self.layouts[config.modelType] else {
      throw refuse(
        "llama.cpp's layout of \(config.modelType) is not known; \(Self.layouts.keys.sorted().joined(separator: ", ")) are")
    }
    do { model = try architectures.describe(config) } catch { throw refuse("\(error)") }
    self.architecture = architecture
    rotaryFactors = model.blocks.first?.attention.flatMap { $0.rotary?.uniformDivisors(headSize: $0.headSize) }
    var metadata = try Self.metadata(model, architecture, name)
    try GGUFReadback(
      architecture: architecture, model: model, metadata: metadata, rotaryFactors: rotaryFactors, architectures: architectures
    ).check()
    let source: TokenizerSource?
    do { source = try TokenizerSource(file: file) } catch { throw refuse("\(error)") }
    if let source {
      do {
        let tokenizer = try GGUFTokenizer(source, vocabularySize: model.vocabularySize).write(into: &metadata, config: config.json)
        vocabulary = (source, tokenizer)
      } catch { throw refuse(error.reason) }
      if metadata["tokenizer.chat_template"] == nil, let template = file("chat_template.jinja") {
        metadata["tokenizer.chat_template"] = .string(String(decoding: template, as: UTF8.self))
      }
    } else if let part = ["vocab.json", "merges.txt"].first(where: { file($0) != nil }) {
      throw refuse("\(part) alone is no tokenizer; vocab.json and merges.txt belong together")
    } else if config.json["quantization_config"]?["quant_method"]?.string == GGUFFormat.name {
      throw refuse("the GGUF file it comes from has no tokenizer that is read; put tokenizer.json beside that file")
    } else {
      vocabulary = nil
      metadata["\(architecture).vocab_size"] = .count(model.vocabularySize)
      metadata["tokenizer.ggml.model"] = .string("none")
    }
    self.metadata = metadata
  }

  private static func metadata(
    _ model: ModelDescription, _ architecture: String, _ name: String
  ) throws(FormatError) -> GGUFMetadata {
    func refuse(_ reason: String) -> FormatError { .cannotStore(module: "the model", format: GGUFFormat.name, reason: reason) }
    guard let block = model.blocks.first, let attention = block.attention, let feedForward = block.feedForward else {
      throw refuse("it has no layers of attention and a feed-forward network")
    }
    guard let rotary = attention.rotary else { throw refuse("llama.cpp's \(architecture) rotates queries and keys") }
    switch rotary.scaling {
    case .none, .linear: break
    case _ where rotary.uniformDivisors(headSize: attention.headSize) != nil: break
    default: throw refuse("its rotary scaling has no spelling here yet; none, linear and llama3 have")
    }
    var metadata = GGUFMetadata()
    func key(_ name: String) -> String { "\(architecture).\(name)" }
    metadata["general.architecture"] = .string(architecture)
    metadata["general.type"] = .string("model")
    metadata["general.name"] = .string(name)
    metadata[key("block_count")] = .count(model.blocks.count)
    metadata[key("context_length")] = .count(model.maximumPositions ?? 2048)
    metadata[key("embedding_length")] = .count(model.hiddenSize)
    metadata[key("feed_forward_length")] = .count(feedForward.size)
    metadata[key("attention.head_count")] = .count(attention.heads)
    metadata[key("attention.head_count_kv")] = .count(attention.keyValueHeads)
    metadata[key("rope.freq_base")] = .float32(Float(rotary.base))
    metadata[key("attention.layer_norm_rms_epsilon")] = .float32(model.normEpsilon)
    metadata[key("attention.key_length")] = .count(attention.headSize)
    metadata[key("attention.value_length")] = .count(attention.headSize)
    // Counted once the tensors are known; here for its place.
    metadata["general.file_type"] = .count(0)
    if architecture == "llama" {
      metadata[key("vocab_size")] = .count(model.vocabularySize)
      metadata[key("rope.dimension_count")] = .count(attention.headSize)
    }
    if case .linear(let factor) = rotary.scaling {
      metadata[key("rope.scaling.type")] = .string("linear")
      metadata[key("rope.scaling.factor")] = .float32(Float(factor))
    }
    metadata["general.quantization_version"] = .count(2)
    return metadata
  }

  /// What llama.cpp does otherwise with a few texts.
  ///
  /// - Throws: `FormatError.cannotStore` where it would cut many texts otherwise than the tokenizer does.
  func remarks() throws(FormatError) -> [String] {
    guard let (source, tokenizer) = vocabulary else { return [] }
    do { return try GGUFTokenizerCheck(source, tokenizer, metadata).remarks() } catch {
      throw .cannotStore(module: "the model", format: GGUFFormat.name, reason: error.reason)
    }
  }

  /// Names, order and metadata of the file for the tensors that were appended under their Hugging Face names.
  func layOut(_ tensors: [(name: String, info: TensorInfo)]) throws(CheckpointError) -> GGUFLayout {
    var placements: [GGUFLayout.Placement] = []
    let attention = model.blocks.first?.attention
    for (name, info) in tensors {
      guard let own = GGUFNames.gguf(of: name) else {
        throw .unsupportedOption(option: "output.format", value: GGUFFormat.name, reason: "GGUF has no name for the tensor \(name)")
      }
      guard let type = info.blocks ?? BlockType(info.dtype) else {
        throw .unusableType(tensor: name, dtype: info.typeName, use: "a tensor of a GGUF file")
      }
      var order: [Int]?
      if GGUFNames.rotatesNeighbours(architecture), let rows = info.shape.first, let attention {
        if name.contains(".self_attn.q_proj.") { order = GGUFNames.rotaryOrder(rows: rows, heads: attention.heads) }
        if name.contains(".self_attn.k_proj.") { order = GGUFNames.rotaryOrder(rows: rows, heads: attention.keyValueHeads) }
      }
      placements.append(.init(name: own, type: type, shape: info.shape, source: .appended(name, rowOrder: order)))
    }
    if let factors = rotaryFactors {
      placements.append(
        .init(
          name: "rope_freqs.weight", type: .f32, shape: [factors.count],
          source: .bytes(Tensor(factors, shape: [factors.count], dtype: .float32).bytes)))
    }
    // The order of llama-quantize: both ends first, then the blocks, by name.
    placements.sort { a, b in
      let (first, second) = (GGUFNames.block(of: a.name) ?? -1, GGUFNames.block(of: b.name) ?? -1)
      return first != second ? first < second : a.name.utf8.lexicographicallyPrecedes(b.name.utf8)
    }
    var metadata = metadata
    metadata["general.file_type"] = .count(fileType(of: tensors))
    return GGUFLayout(metadata: metadata, tensors: placements)
  }

  /// The mixture whose types these are; else the one whose main type is the commonest.
  private func fileType(of tensors: [(name: String, info: TensorInfo)]) -> Int {
    let matrices = tensors.filter { $0.info.shape.count == 2 }
    func type(_ info: TensorInfo) -> BlockType? { info.blocks ?? BlockType(info.dtype) }
    for hasImportance in [false, true] {
      let outline = BlockMix.Model(model, hasImportance: hasImportance)
      let found = BlockMix.allCases.first { mix in
        matrices.allSatisfy { name, info in
          let role = BlockMix.Role(of: String(name.dropLast(".weight".count)), in: model)
          let columns = info.shape[1]
          return type(info) == mix.type(of: role, columns: columns, in: outline).fitting(columns: columns)
        }
      }
      if let found { return found.fileType }
    }
    let counts = Dictionary(grouping: matrices.compactMap { type($0.info) }, by: { $0 }).mapValues(\.count)
    let commonest = counts.max { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) }?.key ?? .f16
    if commonest == .mxfp4 { return 38 }
    if commonest == .nvfp4 { return 39 }
    let preferred: [BlockMix] = [.q3_k_m, .q4_k_m, .q5_k_m]
    return (preferred + BlockMix.allCases).first { $0.base == commonest }?.fileType ?? 1
  }
}
