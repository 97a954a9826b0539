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
    case let type as any OptionList.Type: (self.type, choices) = ("list of " + type.element.plural, type.element.choices)
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
  fileprivate var plural: String { ["whole number", "number", "word", "text"].contains(type) ? type + "s" : type }

  static func isWhole(_ type: Any.Type?) -> Bool { type is any SpelledOption.Type || type is any OptionList.Type }

  /// The spellings of all cases, as recipes have them.
  private static func words<Choice: CaseIterable>(_: Choice.Type) -> [String] {
    Choice.allCases.compactMap { value in
      (value as? any Encodable).map { StrictDecoder.encode($0) }.map { $0.string ?? $0.text() }
    }
  }
}

/// A list, whose elements one by one say nothing of what it may hold.
private protocol OptionList { static var element: OptionWords { get } }

extension Array: OptionList {
  fileprivate static var element: OptionWords { OptionWords(of: Element.self) }
}
