import StrictJSON

/// A JSON value together with the path that leads to it, so that every complaint can say where.
struct Field {
  let path: String
  let json: JSON

  subscript(key: String) -> Field? {
    guard let value = json[key], !value.isNull else { return nil }
    return Field(path: path.isEmpty ? key : "\(path).\(key)", json: value)
  }

  func invalid(_ key: String, _ expected: TokenizerError.Expectation) -> TokenizerError {
    .invalidField(path.isEmpty ? key : "\(path).\(key)", expected: expected)
  }

  func required(_ key: String, _ expected: TokenizerError.Expectation) throws(TokenizerError) -> Field {
    guard let field = self[key] else { throw invalid(key, expected) }
    return field
  }

  func list(_ key: String) throws(TokenizerError) -> [Field] { try required(key, .list).elements() }
  func string(_ key: String) throws(TokenizerError) -> String { try required(key, .string).string() }

  /// The member's value; `fallback` where the member is absent or null.
  func bool(_ key: String, else fallback: Bool) throws(TokenizerError) -> Bool {
    guard let field = self[key] else { return fallback }
    guard let value = field.json.bool else { throw .invalidField(field.path, expected: .boolean) }
    return value
  }

  func elements() throws(TokenizerError) -> [Field] {
    guard let elements = json.elements else { throw .invalidField(path, expected: .list) }
    return elements.enumerated().map { Field(path: "\(path)[\($0)]", json: $1) }
  }

  func members() throws(TokenizerError) -> [JSON.Member] {
    guard let members = json.members else { throw .invalidField(path, expected: .object) }
    return members
  }

  func string() throws(TokenizerError) -> String {
    guard let string = json.string else { throw .invalidField(path, expected: .string) }
    return string
  }

  /// A string of one code point, as UTF-8.
  func character() throws(TokenizerError) -> Bytes {
    guard let string = json.string, string.unicodeScalars.count == 1 else { throw .invalidField(path, expected: .character) }
    return Bytes(string.utf8)
  }

  func identifier() throws(TokenizerError) -> Int32 {
    guard let value = json.integer, let id = Int32(exactly: value), id >= 0, id < .max else {
      throw .invalidField(path, expected: .identifier)
    }
    return id
  }

  func count() throws(TokenizerError) -> Int {
    guard let value = json.integer, value >= 0 else { throw .invalidField(path, expected: .count) }
    return value
  }
}
