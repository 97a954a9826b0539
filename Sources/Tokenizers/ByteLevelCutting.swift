public import StrictJSON

/// How a byte-level tokenizer cuts text, of the ways that have names.
public enum ByteLevelCutting: Sendable, Equatable {
  case gpt2, qwen2, tekken, o200k
  case llama3(ignoresMerges: Bool)
  /// GPT-2's way after every digit was cut off.
  case digits

  fileprivate var expression: String? {
    switch self {
    case .gpt2, .digits: nil
    case .qwen2: WordPattern.qwen2
    case .tekken: WordPattern.tekken
    case .o200k: WordPattern.o200k
    case .llama3: WordPattern.llama3
    }
  }

  fileprivate var ignoresMerges: Bool {
    switch self {
    case .llama3(let ignores): ignores
    case .tekken: true
    case .gpt2, .qwen2, .o200k, .digits: false
    }
  }
}

extension JSON {
  /// A `tokenizer.json` for a byte-level vocabulary that came without one.
  public static func byteLevel(
    vocabulary: [(text: String, id: Int)], merges: [String], added: [(text: String, id: Int, isSpecial: Bool)],
    preTokenizer cutting: ByteLevelCutting
  ) -> JSON {
    let bytes = DocumentParts.byteLevel(addsSpace: false, cuts: cutting.expression == nil)
    var steps = [bytes]
    if let expression = cutting.expression { steps.insert(DocumentParts.split(expression), at: 0) }
    if cutting == .digits { steps.insert(DocumentParts.object("Digits", ("individual_digits", .bool(true))), at: 0) }
    return DocumentParts.document(
      added: added.map { DocumentParts.added($0.text, id: $0.id, isSpecial: $0.isSpecial) },
      normalizer: cutting == .qwen2 ? DocumentParts.object("NFC") : .null,
      preTokenizer: DocumentParts.sequence("pretokenizers", steps), postProcessor: .null, decoder: bytes,
      model: DocumentParts.object(
        "BPE", ("ignore_merges", .bool(cutting.ignoresMerges)), ("vocab", .object(vocabulary.map { .init($0.text, .integer($0.id)) })),
        ("merges", .array(merges.map { .string($0) }))))
  }
}
