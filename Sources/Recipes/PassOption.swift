internal import Passes
internal import StrictJSON

/// An option of a pass as a user sees it: how it is spelled, what it may be, what it is if nothing is said.
public struct PassOption: Sendable, Equatable {
  /// Its path inside the pass, such as `bits` or `eviction.budget`.
  public let path: String
  /// Its type, in words such as `whole number`.
  public let type: String
  /// All values, where they are a closed set; otherwise empty.
  public let choices: [String]
  /// As recipes would spell it; `nil` where there is none.
  public let standard: String?
  /// What it does; `nil` where the catalog has no sentence.
  public let sentence: String?
}

extension PassCatalog {
  /// The options of a pass, nested ones behind the one they are in.
  ///
  /// - Returns: `nil` where the catalog has no such pass.
  public func options(of pass: String) -> [PassOption]? {
    guard let type = self[pass] else { return nil }
    return described(type)
  }

  private func described<P: Pass>(_: P.Type) -> [PassOption] {
    let pass = P().effective
    let (found, defaults) = (KeyRecorder.types(of: pass), StrictDecoder.encode(pass))
    // What has a spelling of its own, or is a list, is one option whatever it holds.
    func isWhole(_ path: [String]) -> Bool { OptionWords.isWhole(found[path] ?? nil) }
    let paths = found.keys.filter { path in path.indices.dropFirst().allSatisfy { !isWhole(Array(path[..<$0])) } }
    var options = paths.map { path in
      let spelled = path.joined(separator: ".")
      let words = OptionWords(of: found[path] ?? nil)
      return PassOption(
        path: spelled, type: words.type, choices: words.choices,
        standard: path.reduce(Optional(defaults)) { $0?[$1] }.flatMap { $0.members == nil || isWhole(path) ? $0.string ?? $0.text() : nil },
        sentence: sentences[P.name]?[spelled])
    }
    if NamedScheme.isTaken(by: Set(paths.filter { $0.count == 1 }.map { $0[0] })) {
      options.append(
        PassOption(
          path: NamedScheme.key, type: "word", choices: NamedScheme.names, standard: nil, sentence: sentences[P.name]?[NamedScheme.key]))
    }
    return options.sorted { $0.path < $1.path }
  }
}

/// What the type of an option says of its values.
struct OptionWords {
  let type: String
  let choices: [String]

  init(of type: Any.Type?) {
    switch type {
    case let type as any SpelledOption.Type: (self.type, choices) = (type.spelling, [])
    case let type as any ListedOption.Type: (self.type, choices) = (Self.keys(type), [])
    case let type as any OptionList.Type:
      let element = OptionWords(of: type.elementType)
      (self.type, choices) = ("list of " + element.plural, element.choices)
    case let type as any CaseIterable.Type:
      self.type = "word"
      choices = Self.words(type)
    case is Bool.Type: (self.type, choices) = ("true or false", [])
    case is String.Type: (self.type, choices) = ("text", [])
    case is Double.Type, is Float.Type: (self.type, choices) = ("number", [])
    case is any BinaryInteger.Type: (self.type, choices) = ("whole number", [])
    default: (self.type, choices) = ("options", [])
    }
  }

  /// The type as what is missing, such as `a whole number`.
  var needed: String {
    ["whole number", "number", "word", "text"].contains(type) || type.hasPrefix("list") ? "a " + type : type
  }

  /// The type of several such.
  fileprivate var plural: String { ["whole number", "number", "word"].contains(type) ? type + "s" : type == "text" ? "words" : type }

  static func isWhole(_ type: Any.Type?) -> Bool { type is any SpelledOption.Type || type is any OptionList.Type }

  /// The keys of an element of a list.
  private static func keys<Element: ListedOption>(_: Element.Type) -> String {
    "{ \(KeyRecorder.paths(of: Element.sample).filter { $0.count == 1 }.map { $0[0] }.sorted().joined(separator: ", ")) }"
  }

  /// The type that stands at a path, which may lead through lists.
  ///
  /// - Parameter types: of what the defaults hold.
  static func type(at path: [String], in types: [[String]: Any.Type?]) -> Any.Type? {
    if let found = types[path] ?? nil { return found }
    for (place, key) in path.enumerated() where Int(key) != nil {
      guard let list = types[Array(path[..<place])] ?? nil, let element = (list as? any OptionList.Type)?.elementType else { continue }
      let rest = Array(path[(place + 1)...])
      if rest.isEmpty { return element }
      return (element as? any ListedOption.Type).flatMap { inner(rest, of: $0) }
    }
    return nil
  }

  private static func inner<Element: ListedOption>(_ path: [String], of _: Element.Type) -> Any.Type? {
    type(at: path, in: KeyRecorder.types(of: Element.sample))
  }

  /// The spellings of all cases, as recipes have them.
  private static func words<Choice: CaseIterable>(_: Choice.Type) -> [String] {
    Choice.allCases.compactMap { value in
      (value as? any Encodable).map { StrictDecoder.encode($0) }.map { $0.string ?? $0.text() }
    }
  }
}

/// A list, whose elements one by one say nothing of what it may hold.
private protocol OptionList { static var elementType: Any.Type { get } }

extension Array: OptionList {
  fileprivate static var elementType: Any.Type { Element.self }
}
