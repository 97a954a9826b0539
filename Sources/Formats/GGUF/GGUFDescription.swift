import CheckpointIO
import Foundation
import Models
import StrictJSON
import Tensors
import Tokenizers

/// What a GGUF file says of a model besides its weights: metadata, names, order, and the factors of its rotary frequencies.
struct GGUFDescription {
  private let architecture: GGUFArchitecture
  private let model: ModelDescription
  private let metadata: GGUFMetadata
  private let rotation: GGUFRotation
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
    let layouts = GGUFArchitecture.layouts(of: config.modelType)
    guard let first = layouts.first else {
      throw refuse(
        "llama.cpp's layout of \(config.modelType) is not known; \(GGUFArchitecture.modelTypes.joined(separator: ", ")) are")
    }
    do { model = try architectures.describe(config) } catch { throw refuse("\(error)") }
    let shapes = model.tensorShapesByExpert
    architecture = layouts.first { layout in shapes.allSatisfy { layout.names.place(of: $0.name) != nil } } ?? first
    let keys = try GGUFModelKeys(model, architecture, config)
    rotation = keys.rotation
    var metadata = keys.metadata(name: name)
    try GGUFReadback(
      architecture: architecture, model: model, metadata: metadata, rotaryFactors: rotation.factors, architectures: architectures
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
      metadata["\(architecture.name).vocab_size"] = .count(model.vocabularySize)
      metadata["tokenizer.ggml.model"] = .string("none")
    }
    self.metadata = metadata
  }

  /// What llama.cpp does otherwise with a few texts, and with numbers where that is known and small.
  ///
  /// - Throws: `FormatError.cannotStore` where it would cut many texts otherwise than the tokenizer does.
  func remarks() throws(FormatError) -> [String] {
    var remarks = rotation.remark.map { [$0] } ?? []
    if architecture.approximatesGELU {
      remarks.append("llama.cpp computes the GELU of \(architecture.name) by its tanh form, which differs by at most 0.0005")
    }
    if architecture.roundsYarn, rotation.isYarn {
      remarks.append("llama.cpp rounds the ends of YaRN's blend to whole pairs of dimensions, so a few rotary frequencies differ")
    }
    guard let (source, tokenizer) = vocabulary else { return remarks }
    do { return remarks + (try GGUFTokenizerCheck(source, tokenizer, metadata).remarks()) } catch {
      throw .cannotStore(module: "the model", format: GGUFFormat.name, reason: error.reason)
    }
  }

  /// Names, order and metadata of the file for the tensors that were appended under their Hugging Face names.
  func layOut(_ tensors: [(name: String, info: TensorInfo)]) throws(CheckpointError) -> GGUFLayout {
    var placements: [GGUFLayout.Placement] = []
    var stacks: [String: [Int: (name: String, info: TensorInfo)]] = [:]
    for (name, info) in tensors {
      guard let place = architecture.names.place(of: name) else {
        throw .unsupportedOption(option: "output.format", value: GGUFFormat.name, reason: "GGUF has no name for the tensor \(name)")
      }
      if let expert = place.expert {
        stacks[place.name, default: [:]][expert] = (name, info)
        continue
      }
      let order = rowOrder(of: place.name, rows: info.shape.first ?? 0)
      placements.append(
        .init(name: place.name, type: try type(of: info, name), shape: info.shape, source: .appended(name, rowOrder: order)))
    }
    for (name, experts) in stacks { placements.append(try stack(name, experts)) }
    for (name, tensor) in rotation.factors.named {
      placements.append(.init(name: name, type: .f32, shape: tensor.shape, source: .bytes(tensor.bytes)))
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

  private func type(of info: TensorInfo, _ name: String) throws(CheckpointError) -> BlockType {
    guard let type = info.blocks ?? BlockType(info.dtype) else {
      throw .unusableType(tensor: name, dtype: info.typeName, use: "a tensor of a GGUF file")
    }
    return type
  }

  private func rowOrder(of name: String, rows: Int) -> [Int]? {
    guard let module = GGUFNames.module(of: name), let attention = model.blocks.lazy.compactMap(\.attention).first else { return nil }
    return architecture.rows[module]?.order(rows: rows, heads: attention.heads, keyValueHeads: attention.keyValueHeads)
  }

  /// The tensor that holds those of all experts.
  private func stack(
    _ name: String, _ experts: [Int: (name: String, info: TensorInfo)]
  ) throws(CheckpointError) -> GGUFLayout.Placement {
    let parts = experts.sorted { $0.key < $1.key }
    guard let first = parts.first?.value, parts.last?.key == parts.count - 1 else { throw .missingTensor(name: name) }
    if let other = parts.first(where: { $0.value.info != first.info })?.value {
      throw .unsupportedOption(
        option: "output.format", value: GGUFFormat.name,
        reason: "\(name) holds all experts of a layer in one type and shape: \(first.name) is \(first.info.typeName) \(first.info.shape), "
          + "\(other.name) \(other.info.typeName) \(other.info.shape)")
    }
    return .init(
      name: name, type: try type(of: first.info, first.name), shape: [parts.count] + first.info.shape,
      source: .joined(parts.map(\.value.name)))
  }

  /// The mixture whose types these are; else the one whose main type is the commonest.
  private func fileType(of tensors: [(name: String, info: TensorInfo)]) -> Int {
    // Routers and positions stay as they are in all mixtures of types.
    let small = model.blocks.flatMap { block in block.feedForward?.mixture?.routers.map { block.prefix + $0.rawValue + ".weight" } ?? [] }
    let apart = Set(small + (model.positions.map { [$0.module + ".weight"] } ?? []))
    let matrices = tensors.filter { $0.info.shape.count == 2 && $0.name.hasSuffix(".weight") && !apart.contains($0.name) }
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
