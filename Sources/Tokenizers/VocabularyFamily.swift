import StrictJSON

/// What a tokenizer does whose files are a vocabulary and nothing that says what to do with it.
struct VocabularyFamily {
  private enum Kind { case gpt2, qwen2, opt, roberta, bert }

  /// By `tokenizer_class` without its ending, and by `model_type`.
  private static let kinds: [String: Kind] = [
    "GPT2Tokenizer": .gpt2, "gpt2": .gpt2, "Qwen2Tokenizer": .qwen2, "qwen2": .qwen2, "qwen2_moe": .qwen2, "qwen3": .qwen2,
    "qwen3_moe": .qwen2, "opt": .opt, "RobertaTokenizer": .roberta, "roberta": .roberta, "BertTokenizer": .bert, "bert": .bert,
    "DistilBertTokenizer": .bert, "distilbert": .bert, "ElectraTokenizer": .bert, "electra": .bert,
  ]

  private let kind: Kind
  private let configuration: JSON
  private let names: JSON
  private let added: JSON

  /// - Parameters:
  ///   - names: `special_tokens_map.json`.
  ///   - added: `added_tokens.json`.
  init(configuration: JSON?, names: JSON?, added: JSON?, modelType: String?) throws(TokenizerError) {
    let name = configuration?["tokenizer_class"]?.string.map { $0.hasSuffix("Fast") ? String($0.dropLast(4)) : $0 }
    // OPT's files call themselves GPT-2's.
    guard let kind = (modelType == "opt" ? .opt : nil) ?? (name ?? modelType).flatMap({ Self.kinds[$0] }) else {
      throw .unknownClass(name ?? modelType, known: Self.kinds.keys.sorted())
    }
    self.kind = kind
    self.configuration = configuration ?? .object([])
    self.names = names ?? .object([])
    self.added = added ?? .object([])
  }

  /// The tokens of `added_tokens_decoder` in `tokenizer_config.json`, as `tokenizer.json` has them.
  static func declared(_ configuration: JSON?) -> [JSON] {
    (configuration?["added_tokens_decoder"]?.members ?? []).compactMap { member in
      Int(member.key).map { id in .object([.init("id", .integer(id))] + (member.value.members ?? [])) }
    }
  }

  /// Special and added tokens: those that the configuration declares, else those that the files name.
  ///
  /// A name without an id gets the next one after the vocabulary, as in transformers.
  private func addedTokens(_ vocabulary: [JSON.Member], defaults: [String]) -> [JSON] {
    let declared = Self.declared(configuration)
    guard declared.isEmpty else { return declared }
    var ids: [[UInt8]: Int] = [:]
    for member in vocabulary + (added.members ?? []) { ids[Array(member.key.utf8)] = member.value.integer }
    var next = (ids.values.max() ?? -1) + 1
    var result: [JSON] = []
    var seen: Set<[UInt8]> = []
    func add(_ text: String, isSpecial: Bool) {
      guard seen.insert(Array(text.utf8)).inserted else { return }
      let id = ids[Array(text.utf8)] ?? next
      if id == next { next += 1 }
      result.append(DocumentParts.added(text, id: id, isSpecial: isSpecial))
    }
    var hasNames = false
    for key in ["unk_token", "bos_token", "eos_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
      guard let text = DocumentParts.text(configuration[key]) ?? DocumentParts.text(names[key]) else { continue }
      hasNames = true
      add(text, isSpecial: true)
    }
    for token in (configuration["additional_special_tokens"] ?? names["additional_special_tokens"])?.elements ?? [] {
      if let text = DocumentParts.text(token) { add(text, isSpecial: true) }
    }
    if !hasNames { for text in defaults where ids[Array(text.utf8)] != nil { add(text, isSpecial: true) } }
    for member in added.members ?? [] { add(member.key, isSpecial: false) }
    return result
  }

  private func identified(_ names: [String], _ added: [JSON], _ vocabulary: [JSON.Member]) -> [(String, Int)] {
    names.compactMap { name in
      let id = added.first { $0["content"]?.string == name }?["id"]?.integer
      return (id ?? vocabulary.first { $0.key == name }?.value.integer).map { (name, $0) }
    }
  }

  /// `vocab.json` with `merges.txt`.
  func byteLevel(_ vocabulary: JSON, merges: Bytes) throws(TokenizerError) -> JSON {
    guard let members = vocabulary.members else { throw .invalidField("vocab.json", expected: .object) }
    guard kind != .bert else { throw .unknownClass(configuration["tokenizer_class"]?.string, known: ["GPT2Tokenizer", "Qwen2Tokenizer"]) }
    let lines = merges.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") })
    let rules = lines.enumerated().filter { !($0 == 0 && $1.starts(with: "#version".utf8)) }.map { String(decoding: $1, as: UTF8.self) }
    let defaults =
      switch kind {
      case .opt: ["</s>", "<pad>"]
      case .roberta: ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
      default: ["<|endoftext|>"]
      }
    let added = addedTokens(members, defaults: defaults)
    let addsSpace = configuration["add_prefix_space"]?.bool ?? false
    let bytes = DocumentParts.byteLevel(addsSpace: addsSpace, cuts: kind != .qwen2)
    let steps = kind == .qwen2 ? [DocumentParts.split(WordPattern.qwen2), bytes] : [bytes]
    var processor = bytes
    switch kind {
    case .opt where configuration["add_bos_token"] == nil:
      processor = DocumentParts.template(before: identified(["</s>"], added, members))
    case .roberta:
      processor = DocumentParts.template(
        before: identified(["<s>"], added, members), after: identified(["</s>"], added, members))
    default: break
    }
    return DocumentParts.document(
      added: added, normalizer: kind == .qwen2 ? DocumentParts.object("NFC") : .null,
      preTokenizer: DocumentParts.sequence("pretokenizers", steps), postProcessor: processor, decoder: bytes,
      model: DocumentParts.object("BPE", ("vocab", vocabulary), ("merges", .array(rules.map { .string($0) }))))
  }

  /// `vocab.txt`, a token a line.
  func wordPiece(_ text: Bytes) throws(TokenizerError) -> JSON {
    guard kind == .bert else { throw .unknownClass(configuration["tokenizer_class"]?.string, known: ["BertTokenizer"]) }
    guard let text = String(validating: text, as: UTF8.self) else {
      throw .malformedModel(path: "vocab.txt", reason: "the text is not UTF-8")
    }
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      var line = line.unicodeScalars
      while let last = line.last, last.properties.isWhitespace { line.removeLast() }
      return String(line)
    }
    if lines.last?.isEmpty == true { lines.removeLast() }
    let vocabulary = lines.enumerated().map { JSON.Member($1, .integer($0)) }
    let added = addedTokens(vocabulary, defaults: ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"])
    let lowers = configuration["do_lower_case"]?.bool ?? true
    let (first, last) = (
      DocumentParts.text(configuration["cls_token"]) ?? "[CLS]", DocumentParts.text(configuration["sep_token"]) ?? "[SEP]"
    )
    return DocumentParts.document(
      added: added,
      normalizer: DocumentParts.object(
        "BertNormalizer", ("clean_text", .bool(true)),
        ("handle_chinese_chars", .bool(configuration["tokenize_chinese_chars"]?.bool ?? true)),
        ("strip_accents", configuration["strip_accents"] ?? .null), ("lowercase", .bool(lowers))),
      preTokenizer: DocumentParts.object("BertPreTokenizer"),
      postProcessor: DocumentParts.template(
        before: identified([first], added, vocabulary), after: identified([last], added, vocabulary)),
      decoder: DocumentParts.object("WordPiece", ("prefix", .string("##")), ("cleanup", .bool(true))),
      model: DocumentParts.object(
        "WordPiece", ("unk_token", .string(DocumentParts.text(configuration["unk_token"]) ?? "[UNK]")),
        ("continuing_subword_prefix", .string("##")), ("max_input_chars_per_word", .integer(100)), ("vocab", .object(vocabulary))))
  }
}
