public import Models

/// Which linears a pass works on: patterns over full names, minus the excluded ones.
///
/// A pattern is a glob (`*` any run of characters, `?` any one) that matches a full name or its end after a dot, so `down_proj` and
/// `mlp.*` mean what they say; or, after `re:`, a regular expression that must match from the start of the full name. The embedding,
/// the head and routers are selected only by a pattern that names them: a glob without a wildcard, an expression with their last word in it. A pattern
/// that matches nothing in the model is an error, except that a model whose head is its embedding may be told to leave the head out, and that
/// what is excluded may also be something the checkpoint holds besides, such as a vision tower. Patterns under `ignore` exclude too, and may
/// match nothing: so llm-compressor takes its own.
public struct LayerSelector: Sendable, Hashable {
  public var include: [String]
  public var exclude: [String]
  public var ignore: [String]

  public init(include: [String] = ["*"], exclude: [String] = [], ignore: [String] = []) {
    self.include = include
    self.exclude = exclude
    self.ignore = ignore
  }

  /// - Parameters:
  ///   - name: the full name, such as `model.layers.0.mlp.down_proj`.
  ///   - isEnd: whether it is the embedding, the head, a router, or a linear of a mixer that errors grow in.
  public func contains(_ name: String, isEnd: Bool = false) -> Bool {
    include.contains { Self.matches($0, name, isEnd: isEnd) } && !(exclude + ignore).contains { Self.matches($0, name, isEnd: false) }
  }

  static func matches(_ pattern: String, _ name: String, isEnd: Bool) -> Bool {
    if pattern.hasPrefix("re:") {
      if isEnd, !pattern.contains(name.split(separator: ".").last ?? "") { return false }
      guard let expression = try? Regex(String(pattern.dropFirst(3))) else { return false }
      return (try? expression.prefixMatch(in: name)) ?? nil != nil
    }
    if isEnd, pattern.contains(where: { "*?".contains($0) }) { return false }
    let (pattern, name) = (Array(pattern.utf8), Array(name.utf8))
    let starts = [0] + name.indices.filter { name[$0] == UInt8(ascii: ".") }.map { $0 + 1 }
    return starts.contains { globs(pattern[...], name[$0...]) }
  }

  private static func globs(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
    guard let first = pattern.first else { return name.isEmpty }
    switch first {
    case UInt8(ascii: "*"):
      return (name.startIndex...name.endIndex).contains { globs(pattern.dropFirst(), name[$0...]) }
    case UInt8(ascii: "?"): return !name.isEmpty && globs(pattern.dropFirst(), name.dropFirst())
    default: return name.first == first && globs(pattern.dropFirst(), name.dropFirst())
    }
  }

  /// Checks every pattern against the names of a model.
  ///
  /// - Parameter carried: modules of the checkpoint that are no part of the model.
  /// - Throws: `InvalidOption` with the nearest name for the first pattern that matches none of them or is not an expression, and for patterns
  ///   that together select nothing.
  package func check(against linears: [PlannedLinear], carried: [String] = []) throws(InvalidOption) {
    for (option, patterns) in [("include", include), ("exclude", exclude), ("ignore", ignore)] {
      for pattern in patterns {
        if pattern.hasPrefix("re:") {
          do { _ = try Regex(String(pattern.dropFirst(3))) } catch {
            throw InvalidOption(option, "\"\(pattern)\" is not a regular expression", word: pattern)
          }
        }
        if option == "ignore" || option == "exclude" && carried.contains(where: { Self.matches(pattern, $0, isEnd: false) }) { continue }
        guard linears.contains(where: { Self.matches(pattern, $0.name, isEnd: option == "include" && $0.isEnd) }) else {
          let fitsHead = Self.matches(pattern, "lm_head", isEnd: option == "include")
          // Where there is no separate head, nothing has to be done to leave it out.
          if option == "exclude", fitsHead || Self.matches(pattern, "model.embed_tokens", isEnd: false) { continue }
          if fitsHead {
            throw InvalidOption(
              option, "\"\(pattern)\" selects the head, and this model has none of its own: it is tied to the embedding", word: pattern)
          }
          let ends = linears.flatMap { [$0.name, String($0.name.split(separator: ".").last ?? "")] }
          let nearest = NearestName.of(pattern, among: ends)
          throw InvalidOption(
            option, "\"\(pattern)\" matches no linear of the model\(nearest.map { "; did you mean \"\($0)\"?" } ?? "")", word: pattern)
        }
      }
    }
    guard !linears.contains(where: { contains($0.name, isEnd: $0.isEnd) }) else { return }
    throw InvalidOption(
      exclude.isEmpty ? ignore.isEmpty ? "include" : "ignore" : "exclude",
      "every linear that is included is excluded as well, so nothing is left to work on; name fewer here, or leave the pass out",
      word: (exclude + ignore).last)
  }

  /// The patterns under `ignore` that match nothing at all.
  package func idle(among names: [String]) -> [String] {
    ignore.filter { pattern in !names.contains { Self.matches(pattern, $0, isEnd: false) } }
  }
}

extension LayerSelector: Codable {
  private enum CodingKeys: String, CodingKey { case include, exclude, ignore }

  /// Reads one pattern, a list of patterns to include, or the lists by name.
  public init(from decoder: any Decoder) throws {
    if let pattern = try? decoder.singleValueContainer().decode(String.self) {
      self.init(include: [pattern])
    } else if let patterns = try? decoder.singleValueContainer().decode([String].self) {
      self.init(include: patterns)
    } else {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      self.init(
        include: try container.decodeIfPresent([String].self, forKey: .include) ?? ["*"],
        exclude: try container.decodeIfPresent([String].self, forKey: .exclude) ?? [],
        ignore: try container.decodeIfPresent([String].self, forKey: .ignore) ?? [])
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(include, forKey: .include)
    try container.encode(exclude, forKey: .exclude)
    try container.encodeIfPresent(ignore.isEmpty ? nil : ignore, forKey: .ignore)
  }
}

extension ModelPart {
  public func selects(_ selector: LayerSelector, _ linear: LinearName) -> Bool {
    selector.contains(fullName(of: linear), isEnd: isNamedOnly(linear))
  }

  /// The selected linears, group by group in the order the part computes them.
  public func groups(_ selector: LayerSelector) -> [InputGroup] {
    inputGroups.compactMap { group in
      let kept = group.linears.filter { selects(selector, $0) }
      return kept.isEmpty ? nil : InputGroup(kept)
    }
  }
}
