public import CheckpointIO
internal import Foundation
internal import StrictJSON
public import Tokenizers

extension GGUFFile {
  /// The tokenizer in the file's metadata; `nil` where there is none.
  ///
  /// Byte-level vocabularies cut text as llama.cpp's name for their pre-tokenizer says; SentencePiece ones are read as the model they were.
  ///
  /// - Throws: `TokenizerError` for kinds and pre-tokenizers that are not known, and for keys that do not fit together.
  public func tokenizerSource() throws(TokenizerError) -> TokenizerSource? { try metadata.tokenizerSource() }

  /// The same as files of a model directory; none where such files lie beside this one.
  public func tokenizerFiles() throws(TokenizerError) -> [CheckpointFile] {
    let directory = URL(filePath: path).deletingLastPathComponent()
    let beside = try TokenizerSource { name in try? Data(contentsOf: directory.appending(path: name)) }
    guard beside == nil, let source = try tokenizerSource() else { return [] }
    return [
      CheckpointFile("tokenizer.json", .text(source.document.text())),
      CheckpointFile("tokenizer_config.json", .text((source.configuration ?? .object([])).text(indent: 2) + "\n")),
    ]
  }
}

extension GGUFMetadata {
  /// The tokenizer that the keys describe; `nil` where they describe none.
  func tokenizerSource() throws(TokenizerError) -> TokenizerSource? {
    guard let kind = self["tokenizer.ggml.model"]?.string, kind != "none", kind != "no_vocab" else { return nil }
    let vocabulary = try GGUFVocabulary(self)
    switch kind {
    case "llama": return .sentencePiece(vocabulary.sentencePiece(.bytePairs), configuration: vocabulary.configuration)
    case "t5": return .sentencePiece(vocabulary.sentencePiece(.unigram), configuration: vocabulary.configuration)
    case "gpt2": return .json(try vocabulary.byteLevel(), configuration: vocabulary.configuration)
    default: throw .unsupportedComponent(field: "tokenizer.ggml.model", type: kind)
    }
  }
}

extension TokenizerSource? {
  fileprivate static func == (source: Self, _: _OptionalNilComparisonType) -> Bool { if case .none = source { true } else { false } }
}

/// The `tokenizer.ggml.*` keys.
private struct GGUFVocabulary {
  private let metadata: GGUFMetadata
  private let tokens: [String]
  /// `normal` where the file does not say.
  private let roles: [SentencePieceModel.Piece.Role]

  private static func key(_ name: String) -> String { "tokenizer.ggml.\(name)" }
  private func value(_ name: String) -> GGUFValue? { metadata[Self.key(name)] }

  init(_ metadata: GGUFMetadata) throws(TokenizerError) {
    self.metadata = metadata
    guard let tokens = metadata[Self.key("tokens")]?.elements?.map({ $0.string ?? "" }), !tokens.isEmpty else {
      throw .invalidField(Self.key("tokens"), expected: .list)
    }
    self.tokens = tokens
    let types = metadata[Self.key("token_type")]?.elements
    guard types.map({ $0.count == tokens.count }) ?? true else { throw .invalidField(Self.key("token_type"), expected: .list) }
    roles =
      types?.map { type in type.integer.flatMap { Int32(exactly: $0) }.flatMap { .init(rawValue: $0) } ?? .normal }
      ?? Array(repeating: .normal, count: tokens.count)
  }

  /// llama.cpp takes the first two tokens of SentencePiece's vocabularies where a file does not say.
  private func id(_ name: String) -> Int? {
    let silent = value("model")?.string == "llama" ? ["unknown": 0, "bos": 1][name] : nil
    return (value("\(name)_token_id")?.integer ?? silent).flatMap { tokens.indices.contains($0) ? $0 : nil }
  }

  /// What `tokenizer_config.json` would say.
  var configuration: JSON {
    let pre = value("pre")?.string
    let starts = value("model")?.string != "gpt2" || pre.map { Self.llama3Names.contains($0) } ?? false
    var members: [JSON.Member] = [
      .init("add_bos_token", .bool((value("add_bos_token")?.bool ?? starts) && id("bos") != nil)),
      .init("add_eos_token", .bool((value("add_eos_token")?.bool ?? false) && id("eos") != nil)),
    ]
    for (key, name) in [("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")] {
      if let id = id(name) { members.append(.init(key, .string(tokens[id]))) }
    }
    if let template = metadata["tokenizer.chat_template"]?.string { members.append(.init("chat_template", .string(template))) }
    return .object(members)
  }

  func sentencePiece(_ kind: SentencePieceModel.Kind) -> SentencePieceModel {
    let scores = value("scores")?.elements
    var model = SentencePieceModel()
    model.kind = kind
    model.pieces = tokens.enumerated().map { id, text in
      let score = scores.flatMap { $0.indices.contains(id) ? $0[id].double : nil } ?? 0
      // llama.cpp looks for user-defined tokens in the text as it stands. T5's belong to the normalized text, with marks for spaces.
      let isMarked = roles[id] == .userDefined && kind == .unigram
      return .init(
        text: isMarked ? text.replacing(" ", with: "\u{2581}") : text, score: score.isFinite ? Float(score) : 0, role: roles[id])
    }
    model.findsUserDefinedInRawText = kind == .bytePairs
    model.fallsBackOnBytes = roles.contains(.byte)
    model.unknown = id("unknown") ?? roles.firstIndex(of: .unknown) ?? 0
    (model.beginning, model.end) = (id("bos"), id("eos"))
    model.addsSpaceBefore = value("add_space_prefix")?.bool ?? true
    // llama.cpp normalizes nothing before it merges, whatever these keys say.
    model.removesExtraSpaces = kind == .unigram && value("remove_extra_whitespaces")?.bool ?? false
    if kind == .unigram {
      model.characterMap = value("precompiled_charsmap")?.elements?.map { UInt8(truncatingIfNeeded: $0.integer ?? 0) } ?? []
    }
    return model
  }

  private static let llama3Names: Set = ["llama-bpe", "llama3", "llama-v3"]

  func byteLevel() throws(TokenizerError) -> JSON {
    guard let merges = value("merges")?.elements?.map({ $0.string ?? "" }) else {
      throw .invalidField(Self.key("merges"), expected: .list)
    }
    let normal = tokens.indices.filter { roles[$0] == .normal || roles[$0] == .byte }
    let added = tokens.indices.compactMap { id -> (text: String, id: Int, isSpecial: Bool)? in
      switch roles[id] {
      case .control, .unknown: (tokens[id], id, true)
      case .userDefined: (tokens[id], id, false)
      case .normal, .byte, .unused: nil
      }
    }
    // Files without types have their special tokens by id only. Where there are types, llama.cpp goes by them.
    let named = value("token_type") == nil ? ["bos", "eos", "unknown", "padding"].compactMap { id($0) } : []
    let special = added + Set(named).sorted().map { (tokens[$0], $0, true) }
    return .byteLevel(
      vocabulary: normal.map { (tokens[$0], $0) }, merges: merges, added: special, preTokenizer: try preTokenizer())
  }

  private func preTokenizer() throws(TokenizerError) -> ByteLevelCutting {
    let name = value("pre")?.string ?? "default"
    switch name {
    case _ where Self.llama3Names.contains(name): return .llama3(ignoresMerges: true)
    case "dbrx", "smaug-bpe": return .llama3(ignoresMerges: false)
    case "qwen2", "stablelm2": return .qwen2
    case "tekken": return .tekken
    case "gpt-4o": return .o200k
    case "gpt-2", "phi-2", "mpt", "olmo", "gpt-neox": return .gpt2
    case "smollm", "starcoder", "refact", "command-r": return .digits
    default: throw .unsupportedOption(field: Self.key("pre"), value: name)
    }
  }
}
