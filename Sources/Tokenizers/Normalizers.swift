import Foundation

/// Text on its way to the pre-tokenizers.
struct NormalizedText {
  var bytes: Bytes
  /// Whether the first code point stems from the first one of the text given to `encode`; `Metaspace` asks.
  var startsAtOrigin: Bool
}

protocol Normalizer: Sendable {
  func normalize(_ text: inout NormalizedText)
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
    case let type: throw .unsupportedComponent(field: field.path, type: type)
    }
  }
}

private struct Prepend: Normalizer {
  let text: Bytes

  func normalize(_ text: inout NormalizedText) {
    if !text.bytes.isEmpty { text.bytes.insert(contentsOf: self.text, at: 0) }
  }
}

private struct Replace: Normalizer {
  let pattern: TextPattern
  let content: Bytes

  func normalize(_ text: inout NormalizedText) {
    let (bytes, leadingMatch) = pattern.replacing(in: text.bytes, with: content)
    if let leadingMatch, !leadingMatch.isEmpty {
      // The reference lines what it inserts up with the last code point that it replaces.
      let firstWidth = Unicode.Scalar.width(leading: text.bytes[0])
      if content.isEmpty || leadingMatch.count > firstWidth { text.startsAtOrigin = false }
    }
    text.bytes = bytes
  }
}

private enum UnicodeForm: Normalizer {
  case nfc, nfd, nfkc, nfkd

  func normalize(_ text: inout NormalizedText) {
    guard text.bytes.contains(where: { $0 >= 0x80 }) else { return }
    let string = String(decoding: text.bytes, as: UTF8.self)
    switch self {
    case .nfc: text.bytes = Bytes(string.precomposedStringWithCanonicalMapping.utf8)
    case .nfd: text.bytes = Bytes(string.decomposedStringWithCanonicalMapping.utf8)
    case .nfkc: text.bytes = Bytes(string.precomposedStringWithCompatibilityMapping.utf8)
    case .nfkd: text.bytes = Bytes(string.decomposedStringWithCompatibilityMapping.utf8)
    }
  }
}

private struct Lowercase: Normalizer {
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

  /// The table of the reference ends with Unicode 9.
  private static func isAccent(_ scalar: Unicode.Scalar) -> Bool {
    guard scalar.isMark, let age = scalar.properties.age else { return false }
    return age.major <= 9
  }
}
