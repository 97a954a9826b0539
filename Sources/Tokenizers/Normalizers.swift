/// Text on its way to the pre-tokenizers.
struct NormalizedText {
  var bytes: Bytes
  /// Whether the first code point stems from the first one of the text given to `encode`; `Metaspace` asks.
  var startsAtOrigin: Bool
  /// Bytes that it may become at most.
  let limit: Int

  /// - Parameter bytes: as they were given.
  init(bytes: Bytes, startsAtOrigin: Bool) {
    self.bytes = bytes
    self.startsAtOrigin = startsAtOrigin
    limit = TextGrowth.limit(of: bytes.count)
  }
}

/// How much longer normalizers and decoders may make a text: Unicode's own decompositions stay below 18 times, so that beyond are only
/// replacements that feed each other.
enum TextGrowth {
  static func limit(of count: Int) -> Int { 1 << 20 + 64 * count }
}

protocol Normalizer: Sendable {
  /// - Throws: `TokenizerError.endlessPattern`, or `endlessText` where a single step makes more than the text's limit.
  func normalize(_ text: inout NormalizedText) throws(TokenizerError)
}

enum Normalizers {
  /// The steps that `normalizer` stands for, with sequences laid flat.
  static func steps(of field: Field?) throws(TokenizerError) -> [any Normalizer] {
    guard let field else { return [] }
    switch try field.string("type") {
    case "Sequence":
      var steps: [any Normalizer] = []
      for step in try field.list("normalizers") { steps += try self.steps(of: step) }
      return steps
    case "Prepend": return [Prepend(text: Bytes(try field.string("prepend").utf8))]
    case "Replace":
      let pattern = try TextPattern(try field.required("pattern", .pattern))
      return [Replace(pattern: pattern, content: Bytes(try field.string("content").utf8))]
    case "NFC": return [UnicodeForm.nfc]
    case "NFD": return [UnicodeForm.nfd]
    case "NFKC": return [UnicodeForm.nfkc]
    case "NFKD": return [UnicodeForm.nfkd]
    case "Lowercase": return [Lowercase()]
    case "Strip": return [Strip(left: try field.bool("strip_left", else: true), right: try field.bool("strip_right", else: true))]
    case "StripAccents": return [StripAccents()]
    case "Nmt": return [NmtCleaning()]
    case "ByteLevel": return [ByteLevelNormalizer()]
    case "BertNormalizer": return try BertNormalizers.steps(of: field)
    case "Precompiled":
      let text = try field.required("precompiled_charsmap", .string)
      guard let blob = Base64.decoding(Bytes(try text.string().utf8)[...]), let map = CharacterMap(blob) else {
        throw .invalidField(text.path, expected: .characterMap)
      }
      return [PrecompiledNormalizer(map: map)]
    case let type: throw .unsupportedComponent(field: field.path, type: type)
    }
  }
}

struct Prepend: Normalizer {
  let text: Bytes

  func normalize(_ text: inout NormalizedText) {
    if !text.bytes.isEmpty { text.bytes.insert(contentsOf: self.text, at: 0) }
  }
}

struct Replace: Normalizer {
  let pattern: TextPattern
  let content: Bytes

  func normalize(_ text: inout NormalizedText) throws(TokenizerError) {
    let (bytes, leadingMatch) = try pattern.replacing(in: text.bytes, with: content, limit: text.limit)
    if let leadingMatch, !leadingMatch.isEmpty {
      // The reference lines what it inserts up with the last code point that it replaces.
      let firstWidth = Unicode.Scalar.width(leading: text.bytes[0])
      if content.isEmpty || leadingMatch.count > firstWidth { text.startsAtOrigin = false }
    }
    text.bytes = bytes
  }
}

struct Lowercase: Normalizer {
  /// Code point by code point: `String.lowercased()` looks around, and gives the last sigma of a word another form.
  func normalize(_ text: inout NormalizedText) {
    var result = ""
    for scalar in String(decoding: text.bytes, as: UTF8.self).unicodeScalars { result += scalar.properties.lowercaseMapping }
    text.bytes = Bytes(result.utf8)
  }
}

private struct Strip: Normalizer {
  let left: Bool
  let right: Bool

  func normalize(_ text: inout NormalizedText) {
    let start = left ? text.bytes.span.endOfWhitespace(from: 0) : 0
    let end = right ? max(start, text.bytes.span.startOfWhitespace(to: text.bytes.count)) : text.bytes.count
    if start > 0 { text.startsAtOrigin = false }
    text.bytes = Bytes(text.bytes[start..<end])
  }
}

private struct StripAccents: Normalizer {
  func normalize(_ text: inout NormalizedText) {
    let scalars = String(decoding: text.bytes, as: UTF8.self).unicodeScalars
    if let first = scalars.first, Self.isAccent(first) { text.startsAtOrigin = false }
    var kept = String.UnicodeScalarView()
    kept.append(contentsOf: scalars.lazy.filter { !Self.isAccent($0) })
    text.bytes = Bytes(String(kept).utf8)
  }

  /// The table of the reference ends with Unicode 9, before two signs became letters, and one a mark.
  private static func isAccent(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "\u{1CF2}", "\u{1CF3}": return true
    case "\u{111C9}": return false
    default:
      guard scalar.isMark, let age = scalar.properties.age else { return false }
      return age.major <= 9
    }
  }
}

/// Every byte as a character of the byte-level alphabet.
private struct ByteLevelNormalizer: Normalizer {
  func normalize(_ text: inout NormalizedText) { text.bytes = ByteAlphabet.encoding(text.bytes.span) }
}

/// The clean-up that SentencePiece does for translation. Source: `normalizers/unicode.rs` of huggingface/tokenizers.
private struct NmtCleaning: Normalizer {
  func normalize(_ text: inout NormalizedText) {
    var result = String.UnicodeScalarView()
    for scalar in String(decoding: text.bytes, as: UTF8.self).unicodeScalars {
      switch scalar.value {
      case 0x01...0x08, 0x0B, 0x0E...0x1F, 0x7F, 0x8F, 0x9F: continue
      case 0x09, 0x0A, 0x0C, 0x0D, 0x1680, 0x200B...0x200F, 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD: result.append(" ")
      default: result.append(scalar)
      }
    }
    text.bytes = Bytes(String(result).utf8)
  }
}

/// A SentencePiece character map as huggingface/tokenizers applies it: to short grapheme clusters as a whole, else to code points.
private struct PrecompiledNormalizer: Normalizer {
  let map: CharacterMap

  func normalize(_ text: inout NormalizedText) throws(TokenizerError) {
    var result: Bytes = []
    result.reserveCapacity(text.bytes.count)
    for cluster in String(decoding: text.bytes, as: UTF8.self) {
      guard result.count <= text.limit else { throw .endlessText(limit: text.limit) }
      let bytes = Bytes(cluster.utf8)
      if bytes.count < 6, let replacement = map.first(of: bytes.span) {
        result += replacement
        continue
      }
      var position = 0
      while position < bytes.count {
        let width = Unicode.Scalar.width(leading: bytes[position])
        result += map.first(of: bytes.span.extracting(position..<position + width)) ?? Bytes(bytes[position..<position + width])
        position += width
      }
    }
    text.bytes = result
  }
}
