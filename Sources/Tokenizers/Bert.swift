/// What BERT's tokenizer does to text before WordPiece. Source: `normalizers/bert.rs` and `pre_tokenizers/bert.rs` of huggingface/tokenizers,
/// whose table of categories is that of Unicode 8.
enum BertNormalizers {
  static func steps(of field: Field) throws(TokenizerError) -> [any Normalizer] {
    var steps: [any Normalizer] = []
    if try field.bool("clean_text", else: true) { steps.append(Cleaning()) }
    if try field.bool("handle_chinese_chars", else: true) { steps.append(IdeographSpacing()) }
    let lowers = try field.bool("lowercase", else: true)
    if try field.bool("strip_accents", else: lowers) { steps += [UnicodeForm.nfd, MarkRemoval()] }
    if lowers { steps.append(Lowercase()) }
    return steps
  }

  /// Whether a code point was assigned by Unicode 8.
  static func isOld(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.age.map { $0.major <= 8 } ?? false }

  static func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E: return true
    case 0..<0x80: return false
    // What they were before later editions changed their categories.
    case 0x166D, 0x111C9: return true
    default: break
    }
    switch scalar.properties.generalCategory {
    case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation, .finalPunctuation,
      .otherPunctuation:
      return isOld(scalar)
    default: return false
    }
  }
}

extension Normalizer {
  fileprivate func rewrite(_ text: inout NormalizedText, _ body: (Unicode.Scalar, inout String.UnicodeScalarView) -> Void) {
    var result = String.UnicodeScalarView()
    for scalar in String(decoding: text.bytes, as: UTF8.self).unicodeScalars { body(scalar, &result) }
    text.bytes = Bytes(String(result).utf8)
  }
}

/// Drops control characters and makes every white space a space.
private struct Cleaning: Normalizer {
  func normalize(_ text: inout NormalizedText) {
    rewrite(&text) { scalar, result in
      if !Self.isControl(scalar) { result.append(scalar.properties.isWhitespace ? " " : scalar) }
    }
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "\t", "\n", "\r": return false
    case "\0", "\u{FFFD}": return true
    default:
      switch scalar.properties.generalCategory {
      case .control, .privateUse: return true
      case .format: return BertNormalizers.isOld(scalar)
      default: return false
      }
    }
  }
}

/// Puts spaces around ideographs.
private struct IdeographSpacing: Normalizer {
  func normalize(_ text: inout NormalizedText) {
    guard text.bytes.contains(where: { $0 >= 0xE3 }) else { return }
    rewrite(&text) { scalar, result in
      switch scalar.value {
      case 0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F, 0x2B740...0x2B81F, 0x2B920...0x2CEAF, 0xF900...0xFAFF,
        0x2F800...0x2FA1F:
        result.append(" ")
        result.append(scalar)
        result.append(" ")
      default: result.append(scalar)
      }
    }
  }
}

private struct MarkRemoval: Normalizer {
  func normalize(_ text: inout NormalizedText) {
    guard text.bytes.contains(where: { $0 >= 0x80 }) else { return }
    rewrite(&text) { scalar, result in
      if !Self.isMark(scalar) { result.append(scalar) }
    }
  }

  /// As of the reference's tables, which are those of Unicode 8; the first two became spacing marks since, the others marks without a space.
  private static func isMark(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x1734, 0x1171E: true
    case 0x1885, 0x1886, 0xA9BD, 0x111C9: false
    default: scalar.properties.generalCategory == .nonspacingMark && BertNormalizers.isOld(scalar)
    }
  }
}

/// Words and what stands between them: `\w+|[^\w\s]+` without an engine, in the edition of Unicode that the reference has.
struct WordRuns: PreTokenizer {
  func split(_ pieces: inout PieceList) {
    var result: [Range<Int>] = []
    let bytes = pieces.text
    let text = bytes.span
    for range in pieces.ranges {
      var (start, position) = (range.lowerBound, range.lowerBound)
      var last: Kind = .space
      while position < range.upperBound {
        let (scalar, width) = text.scalar(at: position)
        let kind = Kind(scalar)
        if kind != last {
          if last != .space { result.append(start..<position) }
          start = position
        }
        last = kind
        position += width
      }
      if last != .space { result.append(start..<range.upperBound) }
    }
    pieces.replaceRanges(result)
  }

  private enum Kind {
    case space, word, other

    init(_ scalar: Unicode.Scalar) {
      let isKnown = scalar.properties.age.map { $0.major <= 16 } ?? false
      self = scalar.properties.isWhitespace ? .space : scalar.isWord && isKnown ? .word : .other
    }
  }
}
