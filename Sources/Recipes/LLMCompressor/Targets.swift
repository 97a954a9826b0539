import Passes
import StrictJSON

// Which linears an entry of `targets` or `ignore` means. The reference compares whole names, matches regular expressions from the start of the
// name, and knows classes; of several that fit, a name wins over an expression and an expression over a class, the first in alphabetical
// order among its kind.

extension LLMCompressor {
  struct Target {
    enum Kind: Int { case name, expression, linears, embeddings }

    let entry: Entry
    let kind: Kind

    static let head = "lm_head"
    static let embedding = "model.embed_tokens"

    init(_ entry: Entry, in path: String) throws(RecipeError) {
      self.entry = entry
      let text = entry.text
      func refusal(_ reason: String) -> RecipeError {
        RecipeError(
          file: entry.place.file, line: entry.place.line, column: entry.place.column,
          problem: .invalid(path, reason: "\"\(text)\" \(reason)"), suggestion: nil)
      }
      if text.hasPrefix("re:") {
        guard (try? Regex(String(text.dropFirst(3)))) != nil else { throw refusal("is not a regular expression") }
        kind = .expression
      } else if text == "Linear" {
        kind = .linears
      } else if text == "Embedding" {
        kind = .embeddings
      } else if text.contains(where: { "*?".contains($0) }) {
        throw refusal("is taken literally by llm-compressor, which would match nothing and not say so; write `re:` and an expression")
      } else if text.contains(".") || text == Self.head {
        kind = .name
      } else {
        throw refusal(
          "is neither a full name nor one of the classes Linear and Embedding, so it selects no linear, and llm-compressor would not say so; leave it out, or write 're:.*\(text)$' if names that end so are meant"
        )
      }
    }

    /// Whether it is the name of this end of the model, or fits it.
    func fits(_ end: String) -> Bool {
      switch kind {
      case .name: entry.text == end
      case .expression: (try? Regex(String(entry.text.dropFirst(3))).prefixMatch(in: end)) ?? nil != nil
      case .linears: end == Self.head
      case .embeddings: end == Self.embedding
      }
    }

    /// The patterns of ours that select the same, except that a wildcard takes no end of the model.
    var patterns: [Entry] {
      switch kind {
      case .expression: [entry]
      case .linears: [Entry(text: "*", place: entry.place)]
      case .embeddings: [Entry(text: "embed_tokens", place: entry.place)]
      // Ours may match the end of a name too.
      case .name where entry.text == Self.head || entry.text.hasPrefix("model."): [entry]
      case .name: [Entry(text: "re:\(Self.escaped(entry.text))$", place: entry.place)]
      }
    }

    private static func escaped(_ text: String) -> String {
      text.map { $0.isLetter || $0.isNumber || $0 == "_" ? "\($0)" : "\\\($0)" }.joined()
    }

    func precedes(_ other: Target) -> Bool {
      if kind != other.kind { return kind.rawValue < other.kind.rawValue }
      return entry.text.unicodeScalars.lexicographicallyPrecedes(other.entry.text.unicodeScalars)
    }
  }

  /// Linears under one scheme.
  struct Group {
    var targets: [Target]
    var scheme: Scheme
  }

  /// The linears that a modifier works on: one scheme for all, and others for some of them.
  struct Selection {
    private(set) var base: Scheme
    private(set) var include: [Entry] = []
    private(set) var exclude: [Entry] = []
    /// The last one wins.
    private(set) var overrides: [(layers: [Entry], scheme: Scheme)] = []

    var schemes: [Scheme] { [base] + overrides.map(\.scheme) }

    /// - Throws: `RecipeError` where our selectors cannot say the same.
    init(_ groups: [Group], ignore: [Target], of modifier: Arguments) throws(RecipeError) {
      var ranked: [(target: Target, group: Int)] = []
      for (index, group) in groups.enumerated() {
        for target in group.targets {
          if ranked.contains(where: { $0.target.entry.text == target.entry.text }) {
            throw Self.refusal(target, modifier, "is a target twice; llm-compressor would keep the last without a word")
          }
          ranked.append((target, index))
        }
      }
      ranked.sort { $0.target.precedes($1.target) }
      func isUntouched(_ item: (target: Target, group: Int)) -> Bool { groups[item.group].scheme.preset == nil }
      let spared = ranked.prefix(while: isUntouched).map(\.target)
      ranked.removeFirst(spared.count)
      while let last = ranked.last, isUntouched(last) { ranked.removeLast() }
      if let between = ranked.first(where: isUntouched) {
        throw Self.refusal(
          between.target, modifier, "would stay unquantized only where no other target fits better, which cannot be said here")
      }
      guard let last = ranked.last else { throw modifier.refusal("it quantizes nothing") }
      base = groups[last.group].scheme
      let ignored = ignore + spared
      for item in ranked { include += try Self.patterns(item.target, ignored, modifier).filter { !include.contains($0) } }
      exclude = ignored.flatMap(\.patterns)
      if let all = exclude.first(where: { $0.text == "*" }) {
        throw RecipeError(
          file: all.place.file, line: all.place.line, column: all.place.column,
          problem: .invalid("\(modifier.path).ignore", reason: "every linear is ignored, so nothing is left to quantize"), suggestion: nil)
      }
      var runs: [(layers: [Entry], group: Int)] = []
      for item in ranked {
        let patterns = try Self.patterns(item.target, ignored, modifier)
        if runs.last?.group == item.group { runs[runs.count - 1].layers += patterns } else { runs.append((patterns, item.group)) }
      }
      overrides = runs.dropLast().reversed().map { ($0.layers, groups[$0.group].scheme) }
    }

    /// What selects a target's linears, the ends of the model included where the reference would take them.
    private static func patterns(_ target: Target, _ ignored: [Target], _ modifier: Arguments) throws(RecipeError) -> [Entry] {
      func isLeft(_ end: String) -> Bool { target.fits(end) && !ignored.contains { $0.fits(end) } }
      if target.kind == .expression {
        for (end, name) in [(Target.head, "lm_head"), (Target.embedding, "embed_tokens")]
        where isLeft(end) && !target.entry.text.contains(name) {
          throw refusal(target, modifier, "also fits \(end), which must be named here; name it, or ignore it")
        }
      }
      guard target.kind == .linears, isLeft(Target.head) else { return target.patterns }
      return target.patterns + [Entry(text: Target.head, place: target.entry.place)]
    }

    private static func refusal(_ target: Target, _ modifier: Arguments, _ reason: String) -> RecipeError {
      RecipeError(
        file: target.entry.place.file, line: target.entry.place.line, column: target.entry.place.column,
        problem: .invalid("\(modifier.path).targets", reason: "\"\(target.entry.text)\" \(reason)"), suggestion: nil)
    }

    /// `layers` of a pass.
    var layers: RecipeNode.Member {
      let members = [Self.list("include", include)] + Self.exclusions(exclude)
      return .init(key: "layers", mark: include[0].place, node: RecipeNode(value: .mapping(members), position: include[0].place))
    }

    /// What is left out: the ends of the model, which every model knows, and what llm-compressor leaves out without a word where it is absent.
    static func exclusions(_ entries: [Entry]) -> [RecipeNode.Member] {
      func isEnd(_ entry: Entry) -> Bool {
        [Target.head, Target.embedding].contains { LayerSelector(include: [entry.text]).contains($0, isEnd: true) }
      }
      return [("exclude", entries.filter(isEnd)), ("ignore", entries.filter { !isEnd($0) })].filter { !$0.1.isEmpty }.map(list)
    }

    static func list(_ name: String, _ entries: [Entry]) -> RecipeNode.Member {
      let nodes = entries.map { RecipeNode(value: .scalar(.string($0.text)), position: $0.place) }
      let place = entries[0].place
      return .init(key: name, mark: place, node: RecipeNode(value: .list(nodes), position: place))
    }

    /// `overrides` of a pass; `nil` where one scheme is all.
    func overrides(activations: Bool) -> RecipeNode.Member? {
      guard let first = overrides.first else { return nil }
      let nodes = overrides.map { override in
        RecipeNode(
          value: .mapping([Self.list("layers", override.layers)] + override.scheme.options(activations: activations)),
          position: override.scheme.place)
      }
      return .init(key: "overrides", mark: first.scheme.place, node: RecipeNode(value: .list(nodes), position: first.scheme.place))
    }
  }
}
