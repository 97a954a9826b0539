/// Text to token ids and back, as the files of a model say.
///
/// Byte-pair encoding over bytes (GPT-2, Llama 3, Qwen) or over characters (Llama 2, Gemma), unigram models and WordPiece. Read from
/// `tokenizer.json` the ids are those of the Hugging Face library `tokenizers`; from SentencePiece's and tiktoken's `tokenizer.model` those of
/// these libraries, with special tokens recognised in text. A file with a component that is not implemented is refused.
///
/// ```swift
/// let tokenizer = try Tokenizer(directory: model)
/// let ids = tokenizer.encode("Hello world", addingSpecialTokens: true)
/// let text = tokenizer.decode(ids, skippingSpecialTokens: true)
/// ```
public struct Tokenizer: Sendable {
  private let addedTokens: [Int32: AddedToken]
  /// Looks in the text as given.
  private let rawMatcher: AddedTokenMatcher
  private let normalizers: [any Normalizer]
  /// Looks in normalised text.
  private let normalizedMatcher: AddedTokenMatcher
  private let preTokenizers: [any PreTokenizer]
  private let model: any TokenModel
  private let decoders: [any TokenDecoder]

  /// Tokens that the post-processor, or else `add_bos_token`, puts before a text.
  public let prefix: [Int32]
  /// Tokens that the post-processor, or else `add_eos_token`, puts after a text.
  public let suffix: [Int32]
  /// One more than the highest token id; a model may have more rows than that.
  public let vocabularySize: Int

  /// What a tokenizer is put together from.
  struct Parts {
    let model: any TokenModel
    var addedTokens: [AddedToken] = []
    var normalizers: [any Normalizer] = []
    var preTokenizers: [any PreTokenizer] = []
    var decoders: [any TokenDecoder] = []
    var surroundings = Surroundings()

    init(model: any TokenModel) { self.model = model }

    func id(of token: String) -> Int32? {
      let bytes = Bytes(token.utf8)
      return addedTokens.first { $0.content == bytes }?.id ?? model.vocabulary.id(of: bytes.span)
    }
  }

  init(_ parts: Parts) {
    model = parts.model
    normalizers = parts.normalizers
    preTokenizers = parts.preTokenizers
    decoders = parts.decoders
    addedTokens = Dictionary(parts.addedTokens.map { ($0.id, $0) }) { _, later in later }
    rawMatcher = AddedTokenMatcher(parts.addedTokens.filter { !$0.isNormalized })
    normalizedMatcher = AddedTokenMatcher(parts.addedTokens.filter { $0.isNormalized })
    prefix = parts.surroundings.prefix
    suffix = parts.surroundings.suffix
    vocabularySize = Int(max(model.vocabulary.highestIdentifier ?? -1, addedTokens.keys.max() ?? -1)) + 1
  }

  /// The token ids of a text; the text of an added token stands for that token.
  ///
  /// - Throws: `TokenizerError.endlessPattern` and `endlessText`, where a damaged tokenizer would not come to an end with the text.
  public func encode(_ text: String, addingSpecialTokens: Bool) throws(TokenizerError) -> [Int32] {
    var ids = addingSpecialTokens ? prefix : []
    var encoder = PieceEncoder(model)
    let bytes = Bytes(text.utf8)
    for segment in rawMatcher.segments(of: bytes) {
      switch segment {
      case .token(let id): ids.append(id)
      case .text(let range):
        var normalized = NormalizedText(bytes: Bytes(bytes[range]), startsAtOrigin: range.lowerBound == 0)
        for normalizer in normalizers {
          try normalizer.normalize(&normalized)
          guard normalized.bytes.count <= normalized.limit else { throw .endlessText(limit: normalized.limit) }
        }
        try encode(normalized, with: &encoder, into: &ids)
      }
    }
    if addingSpecialTokens { ids += suffix }
    return ids
  }

  private func encode(_ text: NormalizedText, with encoder: inout PieceEncoder, into ids: inout [Int32]) throws(TokenizerError) {
    for segment in normalizedMatcher.segments(of: text.bytes) {
      switch segment {
      case .token(let id): ids.append(id)
      case .text(let range):
        let startsAtOrigin = text.startsAtOrigin && range.lowerBound == 0
        var pieces = PieceList(NormalizedText(bytes: Bytes(text.bytes[range]), startsAtOrigin: startsAtOrigin))
        for step in preTokenizers { try step.split(&pieces) }
        for range in pieces.ranges { encoder.encode(pieces.text.span.extracting(range), into: &ids) }
      }
    }
  }

  /// The text of token ids; an id that names no token adds nothing, and bytes that are not UTF-8 become U+FFFD.
  ///
  /// - Throws: `TokenizerError.endlessPattern` and `endlessText`, where a damaged tokenizer would not come to an end.
  public func decode(_ ids: [Int32], skippingSpecialTokens: Bool) throws(TokenizerError) -> String {
    var tokens: [Bytes] = []
    for id in ids {
      if let added = addedTokens[id] {
        if !(skippingSpecialTokens && added.isSpecial) { tokens.append(added.pattern) }
      } else if let token = model.vocabulary.token(of: id) {
        tokens.append(token)
      }
    }
    let limit = TextGrowth.limit(of: tokens.reduce(0) { $0 + $1.count })
    for decoder in decoders {
      tokens = try decoder.decode(tokens)
      guard tokens.reduce(0, { $0 + $1.count }) <= limit else { throw .endlessText(limit: limit) }
    }
    return String(decoding: tokens.joined(), as: UTF8.self)
  }
}
