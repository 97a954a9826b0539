import Passes
import StrictJSON

extension LLMCompressor {
  /// A word of a list, and its place.
  struct Entry: Equatable {
    var text: String
    var place: RecipeNode.Position
  }

  /// One `key: value`, and its place.
  struct Argument {
    /// From the modifier down, such as `GPTQModifier.config_groups.group_0`.
    let path: String
    let key: String
    let mark: RecipeNode.Position
    let node: RecipeNode

    var isNull: Bool { if case .scalar(.null) = node.value { true } else { false } }

    func refusal(_ reason: String, suggestion: String? = nil) -> RecipeError {
      RecipeError(file: mark.file, line: mark.line, column: mark.column, problem: .invalid(path, reason: reason), suggestion: suggestion)
    }

    func text() throws(RecipeError) -> String {
      guard let text = node.json.string else { throw refusal("a word is needed") }
      return text
    }

    func integer() throws(RecipeError) -> Int {
      guard let value = node.json.integer else { throw refusal("a whole number is needed") }
      return value
    }

    func flag() throws(RecipeError) -> Bool {
      guard let value = node.json.bool else { throw refusal("true or false is needed") }
      return value
    }

    /// The word in lower case, if it is one of these.
    func choice(_ choices: String...) throws(RecipeError) -> String {
      let word = try text().lowercased()
      guard choices.contains(word) else {
        throw refusal(
          "\"\(word)\" is not possible here; known: \(choices.joined(separator: ", "))", suggestion: NearestName.of(word, among: choices))
      }
      return word
    }

    /// One word or a list of them.
    func entries() throws(RecipeError) -> [Entry] {
      if let word = node.json.string { return [Entry(text: word, place: node.position)] }
      guard case .list(let nodes) = node.value else { throw refusal("a list of names is needed") }
      var entries: [Entry] = []
      for node in nodes {
        guard let word = node.json.string else {
          throw RecipeError(
            file: node.position.file, line: node.position.line, column: node.position.column,
            problem: .invalid(path, reason: "a name is needed"), suggestion: nil)
        }
        entries.append(Entry(text: word, place: node.position))
      }
      return entries
    }

    func arguments() throws(RecipeError) -> Arguments { try Arguments(path: path, mark: mark, node: node) }
  }

  /// A mapping of arguments.
  struct Arguments {
    let path: String
    let mark: RecipeNode.Position
    let all: [Argument]

    init(path: String, mark: RecipeNode.Position, node: RecipeNode) throws(RecipeError) {
      (self.path, self.mark) = (path, mark)
      guard case .mapping(let members) = node.value else {
        throw RecipeError(
          file: mark.file, line: mark.line, column: mark.column, problem: .invalid(path, reason: "a mapping is needed"), suggestion: nil)
      }
      all = members.map { Argument(path: "\(path).\($0.key)", key: $0.key, mark: $0.mark, node: $0.node) }
    }

    /// The argument, which may be null.
    subscript(key: String) -> Argument? { all.first { $0.key == key } }

    /// The argument unless it is null.
    func given(_ key: String) -> Argument? { self[key].flatMap { $0.isNull ? nil : $0 } }

    /// Where it is said, or where it would be.
    func place(of keys: String...) -> RecipeNode.Position { keys.lazy.compactMap { given($0)?.mark }.first ?? mark }

    func check(known: [String]) throws(RecipeError) {
      for argument in all where !known.contains(argument.key) {
        throw RecipeError(
          file: argument.mark.file, line: argument.mark.line, column: argument.mark.column,
          problem: .unknownKey(argument.key, known: known), suggestion: NearestName.of(argument.key, among: known))
      }
    }

    /// Refuses the argument if it is given, null apart.
    func refuse(_ key: String, _ reason: String) throws(RecipeError) {
      if let argument = given(key) { throw argument.refusal(reason) }
    }

    func refusal(_ reason: String) -> RecipeError {
      RecipeError(file: mark.file, line: mark.line, column: mark.column, problem: .invalid(path, reason: reason), suggestion: nil)
    }
  }
}
