extension JSON {
  /// The value as text.
  ///
  /// - Parameter indent: spaces per level, one member or element a line; `nil` writes no white space at all.
  public func text(indent: Int? = nil) -> String {
    var text = ""
    write(into: &text, indent: indent, level: 0)
    return text
  }

  /// The same value with the members of every object in the byte order of their keys.
  public func sorted() -> JSON {
    switch self {
    case .array(let elements): .array(elements.map { $0.sorted() })
    case .object(let members):
      .object(members.map { Member($0.key, $0.value.sorted()) }.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) })
    default: self
    }
  }

  private func write(into text: inout String, indent: Int?, level: Int) {
    func newLine(_ level: Int) { if let indent { text += "\n" + String(repeating: " ", count: indent * level) } }
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .number(let literal): text += literal
    case .string(let string): Self.quote(string, into: &text)
    case .array(let elements) where elements.isEmpty: text += "[]"
    case .object(let members) where members.isEmpty: text += "{}"
    case .array(let elements):
      text += "["
      for (index, element) in elements.enumerated() {
        if index > 0 { text += "," }
        newLine(level + 1)
        element.write(into: &text, indent: indent, level: level + 1)
      }
      newLine(level)
      text += "]"
    case .object(let members):
      text += "{"
      for (index, member) in members.enumerated() {
        if index > 0 { text += "," }
        newLine(level + 1)
        Self.quote(member.key, into: &text)
        text += indent == nil ? ":" : ": "
        member.value.write(into: &text, indent: indent, level: level + 1)
      }
      newLine(level)
      text += "}"
    }
  }

  private static func quote(_ string: String, into text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\u{08}": text += "\\b"
      case "\u{0C}": text += "\\f"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\u{00}"..<"\u{20}":
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}
