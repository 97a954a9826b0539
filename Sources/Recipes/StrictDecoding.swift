internal import Foundation
internal import Passes
internal import StrictJSON

/// Decodes a Codable value from a part of a recipe: the value's own defaults, overlaid by what the recipe says, and not a key more.
///
/// Synthesized `Codable` ignores property defaults, so the defaults are encoded first and overlaid; and it ignores unknown keys, so the
/// result is encoded again and must hold every key the recipe gave.
struct StrictDecoder {
  let node: RecipeNode
  /// What to call the part in messages, such as `gptq`.
  let name: String
  /// Keys beside the value's own that stood for some of them until they were expanded.
  var shorthands: [String] = []

  func decode<Value: Codable>(_: Value.Type, defaults: Value) throws(RecipeError) -> Value {
    let given = node.json
    guard given.members != nil || given.isNull else { throw error([], .invalid(name, reason: "a mapping of options is needed")) }
    if let path = Self.absurdity(given) {
      throw error(path, .invalid(([name] + path).joined(separator: "."), reason: "a whole number of at most \(Int32.max) is needed"))
    }
    let base = Self.encode(defaults)
    let merged = Self.overlay(given, on: base)
    let value: Value
    do { value = try JSONDecoder().decode(Value.self, from: Data(merged.text().utf8)) } catch let failure as DecodingError {
      // A fraction for an optional whole number fails without saying where: the member that fails alone is the one.
      let fraction =
        Self.fraction(given, base)
        ?? given.members?.first { member in
          guard member.value.double != nil, member.value.integer == nil else { return false }
          let alone = Self.overlay(.object([member]), on: base)
          return (try? JSONDecoder().decode(Value.self, from: Data(alone.text().utf8))) == nil
        }.map { [$0.key] }
      throw Self.translate(failure, self, KeyRecorder.types(of: defaults), fraction: fraction)
    } catch { throw self.error([], .invalid(name, reason: "\(error)")) }
    let known = KeyRecorder.paths(of: value)
    if let stray = Self.stray(given, among: known) {
      let own = known.filter { $0.count == stray.count && $0.dropLast() == stray.dropLast() }.map { $0.last! }
      let siblings = (stray.count == 1 ? own + shorthands : own).sorted()
      throw error(stray, .unknownKey(stray.last!, known: siblings), suggestion: NearestName.of(stray.last!, among: siblings))
    }
    return value
  }

  func error(_ path: [String], _ problem: RecipeError.Problem, suggestion: String? = nil) -> RecipeError {
    let position = node.position(of: path)
    return RecipeError(file: position.file, line: position.line, column: position.column, problem: problem, suggestion: suggestion)
  }

  /// JSON of a value, keys in alphabetical order.
  static func encode(_ value: some Encodable) -> JSON {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(value), let json = try? JSON(parsing: data) else { return .object([]) }
    return json
  }

  private static func overlay(_ given: JSON, on base: JSON) -> JSON {
    guard let members = given.members, var result = Optional(base), base.members != nil else { return given.isNull ? base : given }
    for member in members {
      if member.value.isNull { continue }
      result[member.key] = result[member.key].map { overlay(member.value, on: $0) } ?? member.value
    }
    return result
  }

  /// The path of a key that was given and that the value has no place for.
  private static func stray(_ given: JSON, among known: Set<[String]>, at path: [String] = []) -> [String]? {
    switch given {
    case .object(let members):
      for member in members {
        let inner = path + [member.key]
        guard known.contains(inner) else { return inner }
        if let stray = stray(member.value, among: known, at: inner) { return stray }
      }
    case .array(let elements):
      for (index, element) in elements.enumerated() {
        if let stray = stray(element, among: known, at: path + ["\(index)"]) { return stray }
      }
    default: break
    }
    return nil
  }

  /// The path of a whole number so large that nothing can be so many: products of two of them would overflow.
  private static func absurdity(_ given: JSON) -> [String]? {
    switch given {
    case .number(let text):
      guard text.allSatisfy({ $0.isNumber || $0 == "-" }) else { return nil }
      return Int(text).map { $0.magnitude <= Int32.max } ?? false ? nil : []
    case .array(let elements):
      return elements.indices.lazy.compactMap { index in absurdity(elements[index]).map { ["\(index)"] + $0 } }.first
    case .object(let members): return members.lazy.compactMap { member in absurdity(member.value).map { [member.key] + $0 } }.first
    default: return nil
    }
  }

  /// The path of a fraction that was given where the default is a whole number.
  private static func fraction(_ given: JSON, _ base: JSON) -> [String]? {
    for member in given.members ?? [] {
      guard let expected = base[member.key] else { continue }
      if member.value.double != nil, member.value.integer == nil, expected.integer != nil { return [member.key] }
      if let inner = fraction(member.value, expected) { return [member.key] + inner }
    }
    return nil
  }

  private func given(_ path: [String]) -> JSON? {
    path.reduce(Optional(node.json)) { json, key in
      if let elements = json?.elements { return Int(key).flatMap { elements.indices.contains($0) ? elements[$0] : nil } }
      return json?[key]
    }
  }

  /// That a word is none of a closed set.
  private func unknown(_ path: [String], _ key: String, _ choices: [String]) -> RecipeError {
    let word = given(path).map { $0.string ?? $0.text() } ?? ""
    return error(
      path, .invalid(key, reason: "unknown \"\(word)\"; known: \(choices.joined(separator: ", "))"),
      suggestion: NearestName.of(word, among: choices))
  }

  /// - Parameter types: what stands where, as far as the defaults tell.
  private static func translate(
    _ failure: DecodingError, _ decoder: StrictDecoder, _ types: [[String]: Any.Type?], fraction: [String]?
  ) -> RecipeError {
    func path(_ context: DecodingError.Context) -> [String] { context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue } }
    func key(_ path: [String]) -> String { ([decoder.name] + path).joined(separator: ".") }
    switch failure {
    case .typeMismatch(let type, let context):
      let path = path(context)
      let words = OptionWords(of: OptionWords.type(at: path, in: types) ?? type)
      if !words.choices.isEmpty { return decoder.unknown(path, key(path), words.choices) }
      return decoder.error(path, .invalid(key(path), reason: "\(words.needed) is needed"))
    case .keyNotFound(let missing, let context):
      let path = path(context)
      return decoder.error(path, .missing(key(path + [missing.stringValue]), reason: "it has no default"))
    case .valueNotFound(_, let context):
      let path = path(context)
      return decoder.error(path, .invalid(key(path), reason: "a value is needed"))
    case .dataCorrupted(let context) where context.codingPath.isEmpty && fraction != nil:
      return decoder.error(fraction!, .invalid(key(fraction!), reason: "a whole number is needed"))
    case .dataCorrupted(let context):
      let path = path(context)
      let choices = OptionWords(of: OptionWords.type(at: path, in: types)).choices
      if !choices.isEmpty { return decoder.unknown(path, key(path), choices) }
      let given = decoder.given(path)
      return decoder.error(path, .invalid(key(path), reason: "\(given?.text() ?? "this") is not possible: \(context.debugDescription)"))
    @unknown default: return decoder.error([], .invalid(decoder.name, reason: "\(failure)"))
    }
  }
}
