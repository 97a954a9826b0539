import CheckpointIO
import Foundation
import StrictJSON
import Tokenizers

/// The `tokenizer.ggml.*` keys of a GGUF file, made from `tokenizer.json` and `tokenizer_config.json`.
///
/// llama.cpp looks for added tokens in the text as it stands and normalizes nothing. What it would cut otherwise than the tokenizer does is
/// refused (`GGUFTokenizerCheck`).
struct GGUFTokenizer {
  /// What `tokenizer.ggml.token_type` says of a token.
  private enum Kind: Int32 { case normal = 1, unknown, control, userDefined, unused, byte }

  private struct Token {
    var text: String
    var kind: Kind
    var score: Float = 0
  }

  private struct Added {
    let text: String
    let id: Int
    let isSpecial: Bool
    let isNormalized: Bool
  }

  private let source: TokenizerSource
  private let json: JSON
  private let settings: JSON
  private let vocabularySize: Int
  private var added: [Added] = []

  /// - Parameter vocabularySize: rows of the embedding; the file names that many tokens.
  init(_ source: TokenizerSource, vocabularySize: Int) {
    self.source = source
    json = source.document
    settings = source.configuration ?? .object([])
    self.vocabularySize = vocabularySize
    added = (json["added_tokens"]?.elements ?? []).compactMap { token in
      guard let text = token["content"]?.string, let id = token["id"]?.integer else { return nil }
      let isSpecial = token["special"]?.bool == true
      return Added(text: text, id: id, isSpecial: isSpecial, isNormalized: token["normalized"]?.bool ?? !isSpecial)
    }
  }

  struct Unsupported: Error { var reason: String }

  /// Adds the keys; `config` gives ids that the tokenizer's own files do not.
  ///
  /// - Returns: the tokenizer that the keys stand for.
  func write(into metadata: inout GGUFMetadata, config: JSON) throws(Unsupported) -> Tokenizer {
    guard let model = json["model"], (model["type"]?.string ?? "BPE") == "BPE", let vocabulary = model["vocab"]?.members else {
      throw Unsupported(reason: "its tokenizer is \(json["model"]?["type"]?.string ?? "of no kind"); BPE is written")
    }
    let isByteLevel = has("ByteLevel", in: json["pre_tokenizer"]) || has("ByteLevel", in: json["decoder"])
    if !isByteLevel { try requireBytes(model, vocabulary) }
    let merges = try merges(of: model)
    var tokens = [Token?](repeating: nil, count: vocabularySize)
    func put(_ token: Token, at id: Int) throws(Unsupported) {
      guard tokens.indices.contains(id) else {
        throw Unsupported(reason: "token \(id), \"\(token.text)\", is beyond the \(vocabularySize) rows of the embedding")
      }
      tokens[id] = token
    }
    for member in vocabulary {
      guard let id = member.value.integer else { throw Unsupported(reason: "token \"\(member.key)\" has no id") }
      try put(Token(text: member.key, kind: isByteLevel ? .normal : pieceKind(member.key, model)), at: id)
    }
    for token in added {
      let isControl = token.isSpecial || Self.looksSpecial(token.text)
      let isUnknown = !isByteLevel && token.text == model["unk_token"]?.string
      // Normalization made marks of the spaces that the token is looked for with.
      let text = isControl || !token.isNormalized ? token.text : token.text.replacing("\u{2581}", with: " ")
      try put(Token(text: text, kind: isUnknown ? .unknown : isControl ? .control : .userDefined, score: -1000), at: token.id)
    }
    metadata["tokenizer.ggml.model"] = .string(isByteLevel ? "gpt2" : "llama")
    metadata["tokenizer.ggml.pre"] = .string(isByteLevel ? try preTokenizer(model) : "default")
    metadata["tokenizer.ggml.tokens"] = .strings(tokens.enumerated().map { $1?.text ?? "[PAD\($0)]" })
    if !isByteLevel { metadata["tokenizer.ggml.scores"] = .floats(scores(tokens, merges)) }
    metadata["tokenizer.ggml.token_type"] = .integers(tokens.map { ($0?.kind ?? .unused).rawValue })
    if isByteLevel { metadata["tokenizer.ggml.merges"] = .strings(merges.map { Self.joined($0) }) }
    let tokenizer: Tokenizer
    do { tokenizer = try Tokenizer(source) } catch { throw Unsupported(reason: "\(error)") }
    try writeSpecials(into: &metadata, config: config, tokenizer, isByteLevel: isByteLevel)
    return tokenizer
  }

  /// llama.cpp spells what is no token in bytes, and knows no unknown token.
  private func requireBytes(_ model: JSON, _ vocabulary: [JSON.Member]) throws(Unsupported) {
    guard model["byte_fallback"]?.bool == true else {
      throw Unsupported(
        reason: "its tokenizer makes unknown tokens of unknown characters (byte_fallback is false), where llama.cpp falls back on bytes")
    }
    let names = Set(vocabulary.map(\.key))
    let missing = (0...255).map { "<0x" + ($0 < 16 ? "0" : "") + String($0, radix: 16, uppercase: true) + ">" }.first {
      !names.contains($0)
    }
    if let missing { throw Unsupported(reason: "its vocabulary has no token \(missing), which llama.cpp needs for unknown characters") }
  }

  // MARK: Pieces

  private func pieceKind(_ piece: String, _ model: JSON) -> Kind {
    if piece == model["unk_token"]?.string { return .unknown }
    let isByte =
      piece.count == 6 && piece.hasPrefix("<0x") && piece.hasSuffix(">") && UInt8(piece.dropFirst(3).dropLast(), radix: 16) != nil
    return isByte ? .byte : .normal
  }

  /// Merges as pairs, whichever of the two spellings the file has.
  private func merges(of model: JSON) throws(Unsupported) -> [(String, String)] {
    var merges: [(String, String)] = []
    for merge in model["merges"]?.elements ?? [] {
      let parts = merge.elements?.compactMap(\.string) ?? merge.string?.split(separator: " ", maxSplits: 1).map(String.init) ?? []
      guard parts.count == 2 else { throw Unsupported(reason: "merge \(merge.text()) is no pair") }
      merges.append((parts[0], parts[1]))
    }
    return merges
  }

  /// One space stands between the parts, so a space inside a part is moved out of the way, as llama.cpp's own converter does.
  private static func joined(_ merge: (String, String)) -> String {
    func guarded(_ part: String) -> String { part.replacing(" ", with: "\u{120}") }
    return guarded(merge.0) + " " + guarded(merge.1)
  }

  /// SentencePiece merges the pair with the highest score first; the order of the merges is the order of the scores.
  private func scores(_ tokens: [Token?], _ merges: [(String, String)]) -> [Float] {
    var ranks: [String: Int] = [:]
    for (left, right) in merges where ranks[left + right] == nil { ranks[left + right] = ranks.count }
    var next = ranks.count
    return tokens.map { token in
      guard let token else { return -10_000 }
      switch token.kind {
      case .normal:
        if let rank = ranks[token.text] { return -Float(rank) }
        // No merge makes it: its score decides nothing.
        defer { next += 1 }
        return -Float(next)
      case .userDefined: return token.score
      case .unused: return -10_000
      case .unknown, .control, .byte: return 0
      }
    }
  }

  private static func looksSpecial(_ text: String) -> Bool {
    (text.hasPrefix("<|") && text.hasSuffix("|>")) || (text.hasPrefix("<\u{FF5C}") && text.hasSuffix("\u{FF5C}>"))
      || ["<pad>", "<mask>"].contains(text)
  }

  // MARK: Pre-tokenizers

  private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
  private static let tail = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
  private static let llama3 = contractions + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" + tail
  private static let qwen2 = contractions + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" + tail
  private static let upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
  private static let lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
  private static let o200k =
    "[^\\r\\n\\p{L}\\p{N}]?\(upper)*\(lower)+\(contractions)?|[^\\r\\n\\p{L}\\p{N}]?\(upper)+\(lower)*\(contractions)?|\\p{N}{1,3}"
    + "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
  private static let tekken =
    "[^\\r\\n\\p{L}\\p{N}]?\(upper)*\(lower)+|[^\\r\\n\\p{L}\\p{N}]?\(upper)+\(lower)*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
    + "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

  /// llama.cpp's name for how text is cut before bytes are merged.
  private func preTokenizer(_ model: JSON) throws(Unsupported) -> String {
    let steps = steps(json["pre_tokenizer"])
    let types = steps.compactMap { $0["type"]?.string }
    let pattern = steps.first { $0["type"]?.string == "Split" }?["pattern"]?["Regex"]?.string
    let ignoresMerges = model["ignore_merges"]?.bool == true
    switch (types, pattern) {
    case (["Split", "ByteLevel"], Self.llama3?): return ignoresMerges ? "llama-bpe" : "dbrx"
    case (["Split", "ByteLevel"], Self.qwen2?): return "qwen2"
    case (["Split", "ByteLevel"], Self.tekken?): return "tekken"
    case (["Split", "ByteLevel"], Self.o200k?) where !ignoresMerges: return "gpt-4o"
    case (["Digits", "ByteLevel"], nil): return "smollm"
    case (["ByteLevel"], nil): return "gpt-2"
    default:
      throw Unsupported(
        reason: "llama.cpp's name for its pre-tokenizer \(types.joined(separator: ", "))\(pattern.map { " /\($0)/" } ?? "") is not known")
    }
  }

  private func steps(_ node: JSON?) -> [JSON] {
    guard let node, !node.isNull else { return [] }
    return node["pretokenizers"]?.elements ?? node["decoders"]?.elements ?? node["processors"]?.elements ?? [node]
  }

  private func has(_ type: String, in node: JSON?) -> Bool { steps(node).contains { $0["type"]?.string == type } }

  // MARK: Special tokens

  private func writeSpecials(
    into metadata: inout GGUFMetadata, config: JSON, _ tokenizer: Tokenizer, isByteLevel: Bool
  ) throws(Unsupported) {
    for (key, name) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
      if let id = special(key, config) { metadata["tokenizer.ggml.\(name)_token_id"] = .count(id) }
    }
    try writeAdded(tokenizer.prefix, as: "bos", where: "before", into: &metadata)
    metadata["tokenizer.ggml.add_bos_token"] = .bool(!tokenizer.prefix.isEmpty)
    try writeAdded(tokenizer.suffix, as: "eos", where: "after", into: &metadata)
    if !tokenizer.suffix.isEmpty || settings["add_eos_token"]?.bool != nil {
      metadata["tokenizer.ggml.add_eos_token"] = .bool(!tokenizer.suffix.isEmpty)
    }
    if !isByteLevel {
      // SentencePiece puts a space before the text unless told otherwise.
      let prefix = json["normalizer"].map { steps($0) + ($0["normalizers"]?.elements ?? []) } ?? []
      let prepends = prefix.contains { $0["type"]?.string == "Prepend" }
      let metaspace = steps(json["pre_tokenizer"]).first { $0["type"]?.string == "Metaspace" }
      let scheme = metaspace?["prepend_scheme"]?.string ?? (metaspace?["add_prefix_space"]?.bool == false ? "never" : "always")
      metadata["tokenizer.ggml.add_space_prefix"] = .bool(prepends || (metaspace != nil && scheme != "never"))
    }
    if let template = settings["chat_template"]?.string { metadata["tokenizer.chat_template"] = .string(template) }
  }

  /// The tokens that the tokenizer puts around a text must be one, and the one that llama.cpp puts there.
  private func writeAdded(
    _ tokens: [Int32], as name: String, where place: String, into metadata: inout GGUFMetadata
  ) throws(Unsupported) {
    guard let token = tokens.first else { return }
    let key = "tokenizer.ggml.\(name)_token_id"
    guard tokens.count == 1, (0..<vocabularySize).contains(Int(token)) else {
      throw Unsupported(reason: "its tokenizer puts the tokens \(tokens) \(place) a text, where llama.cpp puts one or none")
    }
    let named = metadata[key]?.integer
    guard named == nil || named == Int(token) else {
      throw Unsupported(
        reason: "its tokenizer puts token \(token) \(place) a text, where llama.cpp puts the \(name) token, \(named ?? 0)")
    }
    metadata[key] = .count(Int(token))
  }

  /// The id of a special token: by its text in `tokenizer_config.json`, else by its id in `config.json`.
  private func special(_ key: String, _ config: JSON) -> Int? {
    let entry = settings["\(key)_token"]
    if let text = entry?.string ?? entry?["content"]?.string {
      if let token = added.first(where: { $0.text == text }) { return token.id }
      if let id = json["model"]?["vocab"]?[text]?.integer { return id }
    }
    let id = config["\(key)_token_id"]
    return (id?.integer ?? id?.elements?.first?.integer).flatMap { (0..<vocabularySize).contains($0) ? $0 : nil }
  }
}
