/// Marks spaces with a character of its own, as SentencePiece does.
struct Metaspace: PreTokenizer {
  enum PrependScheme: String, Sendable {
    case first, never, always
  }

  let replacement: Bytes
  let scheme: PrependScheme
  let splits: Bool

  init(_ field: Field) throws(TokenizerError) {
    replacement = try field.required("replacement", .character).character()
    splits = try field.bool("split", else: true)
    let prepends = try field.bool("add_prefix_space", else: true)
    if let declared = field["prepend_scheme"] {
      let name = try declared.string()
      guard let scheme = PrependScheme(rawValue: name), prepends || scheme == .never else {
        throw .unsupportedOption(field: declared.path, value: name)
      }
      self.scheme = scheme
    } else {
      scheme = prepends ? .always : .never
    }
  }

  func split(_ pieces: inout PieceList) throws(TokenizerError) {
    let startsAtOrigin = pieces.startsAtOrigin
    pieces.rewrite { piece, isFirst, text in
      let isMarked = piece[0] == UInt8(ascii: " ") || piece.starts(with: replacement, at: 0)
      let prepends =
        switch scheme {
        case .always: !isMarked
        case .first: !isMarked && isFirst && startsAtOrigin
        case .never: false
        }
      if prepends { text += replacement }
      for index in 0..<piece.count {
        if piece[index] == UInt8(ascii: " ") { text += replacement } else { text.append(piece[index]) }
      }
    }
    if splits { try Split(pattern: .literal(replacement), behavior: .mergedWithNext, isInverted: false).split(&pieces) }
  }
}
