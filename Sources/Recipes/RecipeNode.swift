import StrictJSON
import Yams

/// A YAML node that knows where it stands.
struct RecipeNode: Sendable {
  enum Value: Sendable {
    case scalar(JSON)
    case list([RecipeNode])
    case mapping([Member])
  }
  struct Position: Equatable, Sendable {
    var file: String
    var line: Int
    var column: Int
  }
  struct Member: Sendable {
    var key: String
    /// Where the key stands.
    var mark: Position
    var node: RecipeNode
  }

  var value: Value
  var position: Position

  /// Parses one YAML document.
  init(yaml: String, file: String) throws(RecipeError) {
    func refused(_ reason: String) -> RecipeError {
      RecipeError(file: file, line: 0, column: 0, problem: .syntax(reason), suggestion: nil)
    }
    // Keys are compared while the text is parsed, before anything can be counted.
    if yaml.contains("&"), yaml.contains(/(^|[\s\[{,])(\*[A-Za-z0-9_-]+\s*:(\s|$)|\?\s+[\*\[{&])/) {
      throw refused("an alias stands for a key; keys are written out in recipes")
    }
    let root: Node?
    do { root = try Yams.compose(yaml: yaml) } catch {
      var place = (line: 0, column: 0)
      var reason = "\(error)"
      if let error = error as? YamlError {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _), .composer(_, let problem, let mark, _):
          place = (mark.line, mark.column)
          reason = problem
        case .duplicatedKeysInMapping(let keys, let context):
          place = (context.mark.line, context.mark.column)
          reason = "repeated key \(keys.map { "\($0)" }.joined(separator: ", "))"
        default: break
        }
      }
      throw RecipeError(file: file, line: place.line, column: place.column, problem: .syntax("not valid YAML: \(reason)"), suggestion: nil)
    }
    guard let root else {
      throw RecipeError(file: file, line: 1, column: 1, problem: .syntax("the recipe is empty"), suggestion: nil)
    }
    var count = 0
    guard let node = Self(root, file: file, &count) else {
      throw refused("its aliases stand for more than \(Self.mostNodes) values; no recipe has so many")
    }
    self = node
  }

  /// Values of a document, those that aliases repeat counted each time.
  private static let mostNodes = 100_000

  /// `nil` where there are too many.
  private init?(_ node: Node, file: String, _ count: inout Int) {
    count += 1
    guard count <= Self.mostNodes else { return nil }
    position = Position(file: file, line: node.mark?.line ?? 0, column: node.mark?.column ?? 0)
    switch node {
    case .scalar(let scalar): value = .scalar(Self.resolve(node, scalar))
    // How Python dumps a word of an enumeration; its safe reader would not read it again.
    case .sequence(let sequence) where sequence.count == 1 && sequence.tag.rawValue.hasPrefix("tag:yaml.org,2002:python/object/apply:"):
      guard let word = RecipeNode(sequence[0], file: file, &count) else { return nil }
      value = word.value
    case .sequence(let sequence):
      var nodes: [RecipeNode] = []
      for element in sequence {
        guard let node = RecipeNode(element, file: file, &count) else { return nil }
        nodes.append(node)
      }
      value = .list(nodes)
    case .mapping(let mapping):
      var members: [Member] = []
      for (key, element) in mapping {
        guard let node = RecipeNode(element, file: file, &count) else { return nil }
        let mark = Position(file: file, line: key.mark?.line ?? 0, column: key.mark?.column ?? 0)
        members.append(Member(key: key.string ?? "", mark: mark, node: node))
      }
      value = .mapping(members)
    case .alias: value = .scalar(.null)
    }
  }

  init(value: Value, position: Position) {
    self.value = value
    self.position = position
  }

  /// The YAML core schema; quoted scalars are strings whatever they look like.
  private static func resolve(_ node: Node, _ scalar: Node.Scalar) -> JSON {
    guard scalar.style == .plain || scalar.style == .any else { return .string(scalar.string) }
    // Older YAML takes 2:4 for a number to the base of 60.
    if scalar.string.contains(":") { return .string(scalar.string) }
    if node.null != nil { return .null }
    if let integer = node.int { return .integer(integer) }
    if let large = UInt64(scalar.string) { return .number("\(large)") }
    if let bool = node.bool { return .bool(bool) }
    if let number = node.float, number.isFinite { return .double(number) }
    return .string(scalar.string)
  }

  var json: JSON {
    switch value {
    case .scalar(let json): json
    case .list(let nodes): .array(nodes.map(\.json))
    case .mapping(let members): .object(members.map { .init($0.key, $0.node.json) })
    }
  }

  /// Of a mapping; none of anything else.
  var members: [Member] { if case .mapping(let members) = value { members } else { [] } }

  subscript(key: String) -> RecipeNode? { members.first { $0.key == key }?.node }

  /// The place of the deepest node on a path of keys and indices.
  func position(of path: [String]) -> Position {
    guard let first = path.first else { return position }
    switch value {
    case .mapping(let members):
      guard let member = members.first(where: { $0.key == first }) else { return position }
      if path.count == 1 { return member.mark }
      return member.node.position(of: Array(path.dropFirst()))
    case .list(let nodes):
      guard let index = Int(first), nodes.indices.contains(index) else { return position }
      return nodes[index].position(of: Array(path.dropFirst()))
    case .scalar: return position
    }
  }

  /// Keys and indices to all places where a word stands.
  func paths(to word: String) -> [[String]] {
    switch value {
    case .scalar(let json): json.string == word ? [[]] : []
    case .list(let nodes): nodes.enumerated().flatMap { index, node in node.paths(to: word).map { ["\(index)"] + $0 } }
    case .mapping(let members): members.flatMap { member in member.node.paths(to: word).map { [member.key] + $0 } }
    }
  }

  /// A copy with one value replaced or added.
  ///
  /// In a list, a path goes by index, or by name to the entry whose only key it is.
  func setting(_ path: [String], to new: RecipeNode) throws(RecipeError) -> RecipeNode {
    guard let first = path.first else { return new }
    let rest = Array(path.dropFirst())
    switch value {
    case .mapping(var members):
      if let index = members.firstIndex(where: { $0.key == first }) {
        members[index].node = try members[index].node.setting(rest, to: new)
      } else {
        let empty = RecipeNode(value: .mapping([]), position: new.position)
        members.append(Member(key: first, mark: new.position, node: rest.isEmpty ? new : try empty.setting(rest, to: new)))
      }
      return RecipeNode(value: .mapping(members), position: position)
    case .list(var nodes):
      // A pass may stand there by its name alone, without options.
      for index in nodes.indices {
        if case .scalar(.string(first)) = nodes[index].value {
          let empty = RecipeNode(value: .scalar(.null), position: nodes[index].position)
          if !rest.isEmpty { nodes[index].value = .mapping([Member(key: first, mark: nodes[index].position, node: empty)]) }
        }
      }
      let named = nodes.indices.filter { nodes[$0][first] != nil }
      if let index = Int(first), nodes.indices.contains(index) {
        nodes[index] = try nodes[index].setting(rest, to: new)
      } else if !named.isEmpty {
        for index in named { nodes[index] = try nodes[index].setting(path, to: new) }
      } else {
        throw RecipeError(
          file: new.position.file, line: 0, column: 0,
          problem: .invalid(first, reason: "the list has no such entry (it has \(nodes.count); count from 0, or name a pass)"),
          suggestion: nil)
      }
      return RecipeNode(value: .list(nodes), position: position)
    case .scalar(.string(first)) where !rest.isEmpty:
      let empty = RecipeNode(value: .scalar(.null), position: position)
      return try RecipeNode(value: .mapping([Member(key: first, mark: position, node: empty)]), position: position).setting(path, to: new)
    case .scalar(.null): return try RecipeNode(value: .mapping([]), position: position).setting(path, to: new)
    case .scalar:
      throw RecipeError(
        file: new.position.file, line: 0, column: 0, problem: .invalid(first, reason: "its parent is a single value"), suggestion: nil)
    }
  }

  /// YAML text of a JSON value, members in their order.
  static func yaml(_ json: JSON) -> String {
    // A tree of nodes made by us always serializes.
    (try? Yams.serialize(node: node(json), indent: 2, width: -1, allowUnicode: true)) ?? json.text(indent: 2)
  }

  private static func node(_ json: JSON) -> Node {
    switch json {
    case .null: Node("null", Tag(.null))
    case .bool(let value): Node(value ? "true" : "false", Tag(.bool))
    case .number(let text): Node(text, Tag(text.contains(where: { ".eE".contains($0) }) ? .float : .int))
    case .string(let text): Node.scalar(.init(text, Tag(.str), needsQuotes(text) ? .doubleQuoted : .plain))
    case .array(let elements): Node(elements.map(node), Tag(.seq))
    case .object(let members): Node(members.map { (Node($0.key), node($0.value)) }, Tag(.map))
    }
  }

  private static func needsQuotes(_ text: String) -> Bool {
    let plain = Node(text, Tag(.implicit), .plain)
    return text.isEmpty || plain.int != nil || plain.float != nil || plain.bool != nil || plain.null != nil
      || text.contains { ":#{}[],&*!|>'\"%@`\n".contains($0) } || text.first == " " || text.last == " " || text.first == "-"
      || text.first == "?"
  }
}

extension RecipeNode.Member {
  init(_ key: String, _ json: JSON, at place: RecipeNode.Position) {
    self.init(key: key, mark: place, node: RecipeNode(value: .scalar(json), position: place))
  }
}
