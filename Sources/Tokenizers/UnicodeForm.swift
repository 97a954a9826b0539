import Foundation

/// Unicode's normalization forms, as the reference's tables know them: those of Unicode 12.
enum UnicodeForm: Normalizer {
  case nfc, nfd, nfkc, nfkd

  func normalize(_ text: inout NormalizedText) {
    guard let first = text.bytes.firstIndex(where: { $0 >= 0x80 }) else { return }
    var result: Bytes = []
    result.reserveCapacity(text.bytes.count)
    var copied = 0
    var start = first
    while start < text.bytes.count {
      var end = start
      while end < text.bytes.count, text.bytes[end] >= 0x80 { end += 1 }
      if !(self == .nfc && isComposed(text.bytes.span.extracting(start..<end))) {
        // The character before may take a mark.
        let begin = max(copied, start - 1)
        result += text.bytes[copied..<begin]
        append(text.bytes[begin..<end], to: &result)
        copied = end
      }
      start = text.bytes[end...].firstIndex { $0 >= 0x80 } ?? text.bytes.count
    }
    guard copied > 0 else { return }
    result += text.bytes[copied...]
    text.bytes = result
  }

  /// Whether nothing in the text is composed or reordered, told by some of the ranges in which nothing ever is.
  private func isComposed(_ text: Span<UInt8>) -> Bool {
    var position = 0
    while position < text.count {
      let (scalar, width) = text.scalar(at: position)
      switch scalar.value {
      case 0..<0x300, 0x400...0x482, 0x48A...0x52F, 0x2010...0x2027, 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xAC00...0xD7A3, 0x1F300...0x1FAFF:
        position += width
      default: return false
      }
    }
    return true
  }

  private func append(_ text: ArraySlice<UInt8>, to result: inout Bytes) {
    var known = String.UnicodeScalarView()
    func flush() {
      if !known.isEmpty { result += Bytes(form(of: String(known)).utf8) }
      known = String.UnicodeScalarView()
    }
    for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
      if Self.isKnown(scalar) {
        known.append(scalar)
      } else {
        flush()
        result += Bytes(String(Character(scalar)).utf8)
      }
    }
    flush()
  }

  /// What came after Unicode 12.0 has neither decomposition nor combining class there.
  private static func isKnown(_ scalar: Unicode.Scalar) -> Bool {
    guard scalar.value >= 0x800, let age = scalar.properties.age else { return true }
    return (age.major, age.minor) <= (12, 0)
  }

  private func form(of text: String) -> String {
    switch self {
    case .nfc: Self.joiningHangul(text.precomposedStringWithCanonicalMapping)
    case .nfd: text.decomposedStringWithCanonicalMapping
    case .nfkc: Self.joiningHangul(text.precomposedStringWithCompatibilityMapping)
    case .nfkd: text.decomposedStringWithCompatibilityMapping
    }
  }

  /// Syllables with the final consonants that follow them: Foundation leaves a syllable that was composed in the text as it is.
  private static func joiningHangul(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { (0x11A8...0x11C2).contains($0.value) }) else { return text }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if (0x11A8...0x11C2).contains(scalar.value), let last = result.last, (0xAC00...0xD7A3).contains(last.value),
        (last.value - 0xAC00) % 28 == 0, let joined = Unicode.Scalar(last.value + scalar.value - 0x11A7)
      {
        result.removeLast()
        result.append(joined)
      } else {
        result.append(scalar)
      }
    }
    return String(result)
  }
}
