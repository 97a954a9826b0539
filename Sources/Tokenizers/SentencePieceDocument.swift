import StrictJSON

extension SentencePieceModel {
  /// The model as `tokenizer.json` would say it, with merges in the order of the scores.
  func document(_ configuration: JSON?) -> JSON {
    var normalizers: [JSON] = []
    if !characterMap.isEmpty {
      normalizers.append(DocumentParts.object("Precompiled", ("precompiled_charsmap", .string(Base64.encoding(characterMap)))))
    }
    if removesExtraSpaces {
      normalizers += [DocumentParts.replace(" {2,}", " ", kind: "Regex"), DocumentParts.replace(#"\A +| +\z"#, "", kind: "Regex")]
    }
    if addsSpaceBefore { normalizers.append(DocumentParts.object("Prepend", ("prepend", .string("\u{2581}")))) }
    normalizers.append(DocumentParts.replace(" ", "\u{2581}"))
    var decoders = [DocumentParts.replace("\u{2581}", " "), DocumentParts.object("ByteFallback"), DocumentParts.object("Fuse")]
    if addsSpaceBefore {
      decoders.append(
        DocumentParts.object("Strip", ("content", .string(" ")), ("start", .integer(1)), ("stop", .integer(0))))
    }
    let added = pieces.enumerated().compactMap { id, piece -> JSON? in
      switch piece.role {
      case .control, .unknown: DocumentParts.added(piece.text, id: id, isSpecial: true)
      case .userDefined: DocumentParts.added(piece.text, id: id, isSpecial: false, isNormalized: !findsUserDefinedInRawText)
      case .normal, .unused, .byte: nil
      }
    }
    func around(_ id: Int?, _ key: String, else fallback: Bool) -> [(String, Int)] {
      guard let id, configuration?[key]?.bool ?? fallback else { return [] }
      return [(pieces[id].text, id)]
    }
    let before = around(beginning, "add_bos_token", else: configuration == nil)
    let after = around(end, "add_eos_token", else: false)
    return DocumentParts.document(
      added: added, normalizer: DocumentParts.sequence("normalizers", normalizers), preTokenizer: .null,
      postProcessor: before.isEmpty && after.isEmpty ? .null : DocumentParts.template(before: before, after: after),
      decoder: DocumentParts.sequence("decoders", decoders), model: kind == .bytePairs ? bytePairs : unigram)
  }

  private var unigram: JSON {
    DocumentParts.object(
      "Unigram", ("unk_id", .integer(unknown)), ("byte_fallback", .bool(fallsBackOnBytes)),
      ("vocab", .array(pieces.map { .array([.string($0.text), .number("\(Double($0.score))")]) })))
  }

  private var bytePairs: JSON {
    let normal = pieces.indices.filter { pieces[$0].role == .normal }
    let texts = normal.map { (bytes: Bytes(pieces[$0].text.utf8), id: Int32($0)) }
    func text(_ id: Int32) -> String { pieces[Int(id)].text }
    func score(_ rule: MergeRule) -> Float { pieces[Int(rule.result)].score }
    let rules = MergeRule.all(making: texts).enumerated().sorted { a, b in
      score(a.element) != score(b.element) ? score(a.element) > score(b.element) : a.offset < b.offset
    }
    return DocumentParts.object(
      "BPE", ("unk_token", .string(pieces[unknown].text)), ("fuse_unk", .bool(true)), ("byte_fallback", .bool(fallsBackOnBytes)),
      ("vocab", .object(pieces.enumerated().filter { $1.role != .unused }.map { .init($1.text, .integer($0)) })),
      ("merges", .array(rules.map { .array([.string(text($0.element.left)), .string(text($0.element.right))]) })))
  }
}
