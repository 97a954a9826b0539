import StrictJSON

/// Byte-pair encoding as of Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016), with the options of
/// the Hugging Face implementation. Source of the details: `models/bpe/model.rs` of huggingface/tokenizers.
struct BytePairEncoding: TokenModel {
  let vocabulary: Vocabulary
  let merges: MergeTable
  private let options: Options
  /// The ids of `<0x00>` to `<0xFF>`; `nil` where the model does not fall back on bytes.
  private let byteTokens: [Int32?]?
  private let byteAlphabet: ByteAlphabetTables?

  struct Options: Sendable {
    /// Whether pieces are bytes that stand for characters of the byte-level alphabet.
    var readsBytes = false
    /// Whether a piece that is a token stays one.
    var ignoresMerges = false
    var unknown: Int32?
    var fusesUnknown = false
    var fallsBack = false
  }

  /// What replaces writing bytes as characters and looking those up.
  private struct ByteAlphabetTables: Sendable {
    let ids: [Int32]
    let pieces: ByteTable
  }

  init(_ field: Field, readsBytes: Bool) throws(TokenizerError) {
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
      if let option = field[key], case let value = try option.string(), !value.isEmpty {
        throw .unsupportedOption(field: option.path, value: value)
      }
    }
    let vocabulary = try Vocabulary(try field.required("vocab", .object))
    var options = Options(readsBytes: readsBytes)
    if let field = field["unk_token"] {
      let token = try field.string()
      guard let id = vocabulary.id(of: Bytes(token.utf8).span) else { throw .unknownToken(token, field: field.path) }
      options.unknown = id
    }
    options.ignoresMerges = try field.bool("ignore_merges", else: false)
    options.fusesUnknown = try field.bool("fuse_unk", else: false)
    options.fallsBack = try field.bool("byte_fallback", else: false)
    self.init(vocabulary, try Self.merges(of: field, vocabulary: vocabulary), options)
  }

  init(_ vocabulary: Vocabulary, _ merges: MergeTable, _ options: Options) {
    self.vocabulary = vocabulary
    self.merges = merges
    self.options = options
    byteTokens = options.fallsBack ? vocabulary.byteTokens() : nil
    let characterIds = ByteAlphabet.characters.map { vocabulary.id(of: Bytes(String($0).utf8).span) }
    // A vocabulary without some of the 256 takes the way over characters, where unknown ones are dealt with.
    byteAlphabet =
      options.readsBytes && !characterIds.contains(nil)
      ? ByteAlphabetTables(ids: characterIds.compactMap { $0 }, pieces: vocabulary.idsOfBytes()) : nil
  }

  private static func merges(of field: Field, vocabulary: Vocabulary) throws(TokenizerError) -> MergeTable {
    let elements = try field.list("merges")
    var table = MergeTable(minimumCapacity: elements.count)
    var rank: UInt32 = 0
    for element in elements {
      if let line = element.json.string, line.hasPrefix("#version") { continue }
      func id(_ token: Bytes) throws(TokenizerError) -> Int32 {
        guard let id = vocabulary.id(of: token.span) else {
          throw .unknownToken(String(decoding: token, as: UTF8.self), field: element.path)
        }
        return id
      }
      let (left, right) = try pair(element)
      table.set(MergeTable.Merge(rank: rank, result: try id(left + right)), try id(left), try id(right))
      rank += 1
    }
    return table
  }

  /// The two parts of a merge: `"left right"`, or `["left", "right"]` since version 0.20 of the reference.
  private static func pair(_ element: Field) throws(TokenizerError) -> (left: Bytes, right: Bytes) {
    if let line = element.json.string {
      let parts = line.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
      if parts.count == 2 { return (Bytes(parts[0]), Bytes(parts[1])) }
    } else if let parts = element.json.elements, parts.count == 2, let left = parts[0].string, let right = parts[1].string {
      return (Bytes(left.utf8), Bytes(right.utf8))
    }
    throw .invalidField(element.path, expected: .merge)
  }

  func encode(_ piece: Span<UInt8>, into tokens: inout [Int32], in workspace: inout Workspace) {
    if let token = wholeToken(piece) {
      tokens.append(token)
      return
    }
    workspace.symbols.removeAll(keepingCapacity: true)
    appendSymbols(of: piece, to: &workspace.symbols)
    workspace.merges.run(&workspace.symbols, merges: merges)
    tokens += workspace.symbols
  }

  /// The token that a whole piece is, where such a token wins over merging.
  private func wholeToken(_ piece: Span<UInt8>) -> Int32? {
    guard options.ignoresMerges else { return nil }
    if let byteAlphabet { return byteAlphabet.pieces.value(of: piece) }
    if options.readsBytes { return vocabulary.id(of: ByteAlphabet.encoding(piece).span) }
    return vocabulary.id(of: piece)
  }

  /// Appends the tokens that merging starts from.
  private func appendSymbols(of piece: Span<UInt8>, to symbols: inout [Int32]) {
    if let byteAlphabet {
      for index in 0..<piece.count { symbols.append(byteAlphabet.ids[Int(piece[index])]) }
    } else if options.readsBytes {
      appendCharacters(of: ByteAlphabet.encoding(piece).span, to: &symbols)
    } else {
      appendCharacters(of: piece, to: &symbols)
    }
  }

  private func appendCharacters(of piece: Span<UInt8>, to symbols: inout [Int32]) {
    var pendingUnknowns = 0
    func flush(_ symbols: inout [Int32]) {
      if let unknown = options.unknown { for _ in 0..<pendingUnknowns { symbols.append(unknown) } }
      pendingUnknowns = 0
    }
    var position = 0
    while position < piece.count {
      let character = piece.extracting(position..<position + Unicode.Scalar.width(leading: piece[position]))
      position += character.count
      if let id = vocabulary.id(of: character) {
        flush(&symbols)
        symbols.append(id)
      } else if !appendFallback(for: character, to: &symbols) {
        // Unknown characters stay pending across bytes: the reference puts them after.
        pendingUnknowns = options.fusesUnknown ? 1 : pendingUnknowns + 1
      }
    }
    flush(&symbols)
  }

  /// Appends the bytes of a character; false, and nothing appended, where one of them has no token.
  private func appendFallback(for character: Span<UInt8>, to symbols: inout [Int32]) -> Bool {
    guard let byteTokens else { return false }
    let first = symbols.count
    for index in 0..<character.count {
      guard let token = byteTokens[Int(character[index])] else {
        symbols.removeLast(symbols.count - first)
        return false
      }
      symbols.append(token)
    }
    return true
  }

  /// Where a text without pre-tokenizer may be cut before a SentencePiece space: no token reaches across.
  var wordStarts: WordStarts? { options.readsBytes || options.ignoresMerges ? nil : WordStarts(vocabulary) }
}
