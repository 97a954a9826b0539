public import StrictJSON

extension Tokenizer {
  /// The tokenizer that a SentencePiece model is, with the tokens around a text that `tokenizer_config.json` asks for.
  ///
  /// Control and unknown tokens are recognised in text, as in transformers and unlike SentencePiece itself; user-defined ones in both.
  /// Models with `treat_whitespace_as_suffix` are read as if without.
  ///
  /// - Throws: `TokenizerError` for a character map that is damaged or a configuration that names unknown tokens.
  public init(_ model: SentencePieceModel, configuration: JSON?) throws(TokenizerError) {
    let pieces = model.pieces.map { Bytes($0.text.utf8) }
    let unknown = Int32(model.unknown)
    let normal = pieces.indices.filter { model.pieces[$0].role == .normal }
    let core: any TokenModel
    switch model.kind {
    case .bytePairs:
      let vocabulary = Vocabulary(pieces)
      // Equal scores are equal ranks: the leftmost pair wins, whatever its parts.
      let order = Dictionary(
        Set(normal.map { model.pieces[$0].score }).sorted(by: >).enumerated().map { ($1, UInt32($0)) },
        uniquingKeysWith: { first, _ in first })
      let rules = MergeRule.all(making: normal.map { (pieces[$0], Int32($0)) })
      let merges = MergeTable(rules) { order[model.pieces[Int($0)].score] ?? 0 }
      core = BytePairEncoding(
        vocabulary, merges, .init(unknown: unknown, fusesUnknown: true, fallsBack: model.fallsBackOnBytes))
    default:
      core = Unigram(
        pieces: pieces, scores: model.pieces.map { Double($0.score) }, matched: normal, unknown: unknown,
        fallsBack: model.fallsBackOnBytes, roundsToSingle: true)
    }
    let normalizer = SentencePieceNormalizer(
      map: model.characterMap.isEmpty ? nil : CharacterMap(model.characterMap), addsSpaceBefore: model.addsSpaceBefore,
      removesExtraSpaces: model.removesExtraSpaces)
    guard model.characterMap.isEmpty || normalizer.map != nil else {
      throw .invalidField("normalizer_spec.precompiled_charsmap", expected: .characterMap)
    }
    var added: [AddedToken] = []
    for (id, piece) in model.pieces.enumerated() {
      switch piece.role {
      case .control, .unknown: added.append(AddedToken(id: Int32(id), content: pieces[id], isSpecial: true, isNormalized: false))
      // In the normalized text what follows gets no space of its own.
      case .userDefined:
        added.append(
          AddedToken(id: Int32(id), content: pieces[id], isSpecial: false, isNormalized: !model.findsUserDefinedInRawText))
      case .normal, .unused, .byte: break
      }
    }
    var decoders: [any TokenDecoder] = [
      ReplaceDecoder(pattern: .literal(SentencePieceNormalizer.mark), content: [UInt8(ascii: " ")]), ByteFallbackDecoder(), Fuse(),
    ]
    if model.addsSpaceBefore { decoders.append(StripDecoder(content: [UInt8(ascii: " ")], start: 1, stop: 0)) }
    var parts = Parts(model: core)
    parts.addedTokens = added
    parts.normalizers = [normalizer]
    parts.preTokenizers = (core as? BytePairEncoding)?.wordStarts.map { [$0] } ?? []
    parts.decoders = decoders
    let settings = configuration ?? .object([.init("add_bos_token", .bool(model.beginning != nil))])
    var named = settings
    // The model's own names, where the configuration has none.
    if let id = model.beginning, named["bos_token"]?.isNull ?? true { named["bos_token"] = .string(model.pieces[id].text) }
    if let id = model.end, named["eos_token"]?.isNull ?? true { named["eos_token"] = .string(model.pieces[id].text) }
    parts.surroundings = try Surroundings(nil, configuration: Field(path: "tokenizer_config.json", json: named)) { parts.id(of: $0) }
    self.init(parts)
  }
}

/// What SentencePiece does to text before it looks for pieces. Source: `normalizer.cc` of google/sentencepiece.
struct SentencePieceNormalizer: Normalizer {
  static let mark: Bytes = [0xE2, 0x96, 0x81]

  let map: CharacterMap?
  let addsSpaceBefore: Bool
  let removesExtraSpaces: Bool

  func normalize(_ text: inout NormalizedText) {
    let bytes = text.bytes
    let source = bytes.span
    let space = UInt8(ascii: " ")
    var result: Bytes = []
    result.reserveCapacity(text.bytes.count + text.bytes.count / 4)
    var endsInSpace = removesExtraSpaces
    var isEmpty = true
    var position = 0
    while position < source.count {
      let found = map?.longest(of: source, at: position)
      let width = Unicode.Scalar.width(leading: source[position])
      if found == nil, source[position] != space {
        if isEmpty, addsSpaceBefore { result += Self.mark }
        for offset in 0..<width { result.append(source[position + offset]) }
        (isEmpty, endsInSpace) = (false, false)
        position += width
        continue
      }
      let piece = found.map { $0.replacement[...] } ?? bytes[position..<position + width]
      position += found?.length ?? width
      let kept = endsInSpace ? piece.drop { $0 == space } : piece
      guard !kept.isEmpty else { continue }
      if isEmpty, addsSpaceBefore { result += Self.mark }
      isEmpty = false
      for byte in kept { if byte == space { result += Self.mark } else { result.append(byte) } }
      endsInSpace = removesExtraSpaces && kept.last == space
    }
    if removesExtraSpaces { while result.suffix(3).elementsEqual(Self.mark) { result.removeLast(3) } }
    text.bytes = result
  }
}
