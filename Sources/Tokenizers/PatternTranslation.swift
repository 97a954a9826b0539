/// Rewrites an expression of Oniguruma's Ruby dialect, the one of `tokenizer.json`, for PCRE2.
///
/// Both agree on most of what tokenizers use. Rewritten: `\s` (PCRE2 adds U+180E), `\w` and `\b` (PCRE2 leaves out marks), `\v`, script
/// names (PCRE2 takes them for script extensions), `{,n}`. Refused: whatever else differs, and whatever is not known not to.
struct PatternTranslation {
  struct Refusal: Error { let construct: String }

  private let pattern: [Unicode.Scalar]
  private var position = 0
  private(set) var output = ""

  private static let space =
    #"\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"#
  /// Everything else, since PCRE2 before 10.45 cannot subtract within a class.
  private static let notSpace =
    #"\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}"#
    + #"\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff}"#
  /// Oniguruma takes the superscripts and fractions of Latin-1, and no others, for word characters.
  private static let word = #"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}"#

  init(_ pattern: String) { self.pattern = Array(pattern.unicodeScalars) }

  mutating func run() throws(Refusal) {
    while let scalar = peek() {
      switch scalar {
      case "\\": try escape(inClass: false)
      case "[": try characterClass()
      case "(": try group()
      case "{": try interval()
      default: copy()
      }
    }
  }

  private func peek(_ offset: Int = 0) -> Unicode.Scalar? {
    position + offset < pattern.count ? pattern[position + offset] : nil
  }

  private func follows(_ text: String) -> Bool {
    let scalars = Array(text.unicodeScalars)
    return pattern.dropFirst(position).starts(with: scalars)
  }

  private mutating func copy() {
    output.unicodeScalars.append(pattern[position])
    position += 1
  }

  private mutating func group() throws(Refusal) {
    if follows("(*") { throw Refusal(construct: "(*") }
    guard follows("(?") else { return copy() }
    let kinds = ["(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"]
    // Elsewhere the two disagree on how far the option reaches.
    let leading = position == 0 && follows("(?i)") ? ["(?i)"] : []
    guard let kind = (kinds + leading).first(where: { follows($0) }) else {
      throw Refusal(construct: text(from: position, count: 4))
    }
    output += kind
    position += kind.unicodeScalars.count
  }

  private func text(from start: Int, count: Int) -> String {
    var text = ""
    text.unicodeScalars.append(contentsOf: pattern[start..<min(start + count, pattern.count)])
    return text
  }

  /// `{n}`, `{n,}`, `{n,m}` and `{,m}`; any other brace stands for itself.
  private mutating func interval() throws(Refusal) {
    var end = position + 1
    var parts = [""]
    while end < pattern.count, pattern[end] != "}" {
      if pattern[end] == "," { parts.append("") } else { parts[parts.count - 1].unicodeScalars.append(pattern[end]) }
      end += 1
    }
    let isInterval =
      end < pattern.count && parts.count <= 2 && parts.contains { !$0.isEmpty }
      && parts.allSatisfy { $0.unicodeScalars.allSatisfy { ("0"..."9").contains($0) } }
    guard isInterval else {
      output += "\\{"
      position += 1
      return
    }
    let length = end + 1 - position
    let following = end + 1 < pattern.count ? pattern[end + 1] : nil
    if following == "+" || (following == "?" && parts.count == 1) {
      throw Refusal(construct: text(from: position, count: length + 1))
    }
    output += "{" + (parts[0].isEmpty ? "0" : parts[0]) + (parts.count == 2 ? "," + parts[1] : "") + "}"
    position += length
  }

  private mutating func characterClass() throws(Refusal) {
    copy()
    if peek() == "^" { copy() }
    if peek() == "]" { throw Refusal(construct: "[]") }
    while let scalar = peek(), scalar != "]" {
      switch scalar {
      case "\\": try escape(inClass: true)
      case "[": throw Refusal(construct: text(from: position, count: 2))
      case "&" where follows("&&"): throw Refusal(construct: "&&")
      default: copy()
      }
    }
    // The closing bracket; PCRE2 reports one that is missing.
    if peek() != nil { copy() }
  }

  private mutating func escape(inClass: Bool) throws(Refusal) {
    guard let letter = peek(1) else { throw Refusal(construct: "\\") }
    let wordSet = "[\(Self.word)]"
    switch letter {
    case "s": output += inClass ? Self.space : "[\(Self.space)]"
    case "S": output += inClass ? Self.notSpace : "[^\(Self.space)]"
    case "w": output += inClass ? Self.word : wordSet
    case "W" where !inClass: output += "[^\(Self.word)]"
    case "b" where !inClass: output += "(?:(?<=\(wordSet))(?!\(wordSet))|(?<!\(wordSet))(?=\(wordSet)))"
    case "B" where !inClass: output += "(?:(?<=\(wordSet))(?=\(wordSet))|(?<!\(wordSet))(?!\(wordSet)))"
    case "A" where !inClass, "z" where !inClass, "d", "D", "r", "n", "t", "f", "a", "e":
      output += "\\"
      output.unicodeScalars.append(letter)
    case "v": output += "\\x{b}"
    case "x", "u": return try codePoint()
    case "p", "P": return try property()
    case _ where letter.isASCII && (letter.properties.isAlphabetic || letter.isNumber):
      throw Refusal(construct: text(from: position, count: 2))
    default:
      output += "\\"
      output.unicodeScalars.append(letter)
    }
    position += 2
  }

  /// `\xHH`, `\x{H…}` or `\uHHHH`.
  private mutating func codePoint() throws(Refusal) {
    let start = position
    let isShort = peek(1) == "x"
    position += 2
    var digits = ""
    if isShort, peek() == "{" {
      position += 1
      while let digit = peek(), digit != "}" {
        digits.unicodeScalars.append(digit)
        position += 1
      }
      position += 1
    } else {
      for _ in 0..<(isShort ? 2 : 4) {
        guard let digit = peek() else { break }
        digits.unicodeScalars.append(digit)
        position += 1
      }
    }
    guard let value = UInt32(digits, radix: 16), Unicode.Scalar(value) != nil else {
      throw Refusal(construct: text(from: start, count: position - start))
    }
    output += "\\x{\(String(value, radix: 16))}"
  }

  private mutating func property() throws(Refusal) {
    let start = position
    guard peek(2) == "{", let length = pattern[position...].firstIndex(of: "}").map({ $0 - start }) else {
      throw Refusal(construct: text(from: start, count: 3))
    }
    var name = text(from: start + 3, count: length - 3)
    let negation = name.hasPrefix("^") ? "^" : ""
    name.removeFirst(negation.count)
    let isPlain = !name.isEmpty && name.unicodeScalars.allSatisfy { $0.isASCII && ($0.properties.isAlphabetic || $0 == "_") }
    guard isPlain else { throw Refusal(construct: text(from: start, count: length + 1)) }
    // One or two letters name a general category; anything longer that is not a script fails to compile.
    output += text(from: start, count: 2) + "{\(negation)\(name.count > 2 ? "sc:" : "")\(name)}"
    position += length + 1
  }
}
