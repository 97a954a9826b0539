import StrictJSON

/// The parts of a `tokenizer.json` that readers of other files put together.
enum DocumentParts {
  static func object(_ type: String, _ members: (String, JSON)...) -> JSON {
    .object([.init("type", .string(type))] + members.map { .init($0.0, $0.1) })
  }

  static func sequence(_ key: String, _ steps: [JSON]) -> JSON {
    steps.isEmpty ? .null : steps.count == 1 ? steps[0] : object("Sequence", (key, .array(steps)))
  }

  static func byteLevel(addsSpace: Bool, cuts: Bool) -> JSON {
    object("ByteLevel", ("add_prefix_space", .bool(addsSpace)), ("trim_offsets", .bool(true)), ("use_regex", .bool(cuts)))
  }

  static func split(_ expression: String) -> JSON {
    object(
      "Split", ("pattern", .object([.init("Regex", .string(expression))])), ("behavior", .string("Isolated")), ("invert", .bool(false)))
  }

  static func replace(_ pattern: String, _ content: String, kind: String = "String") -> JSON {
    object("Replace", ("pattern", .object([.init(kind, .string(pattern))])), ("content", .string(content)))
  }

  static func added(_ content: String, id: Int, isSpecial: Bool, isNormalized: Bool = false) -> JSON {
    .object([
      .init("id", .integer(id)), .init("content", .string(content)), .init("single_word", .bool(false)), .init("lstrip", .bool(false)),
      .init("rstrip", .bool(false)), .init("normalized", .bool(isNormalized)), .init("special", .bool(isSpecial)),
    ])
  }

  /// Tokens, with their ids, around the text.
  static func template(before: [(String, Int)], after: [(String, Int)] = []) -> JSON {
    func token(_ token: (String, Int)) -> JSON {
      .object([.init("SpecialToken", .object([.init("id", .string(token.0)), .init("type_id", .integer(0))]))])
    }
    func text(_ name: String, _ type: Int) -> JSON {
      .object([.init("Sequence", .object([.init("id", .string(name)), .init("type_id", .integer(type))]))])
    }
    let special = (before + after).reduce(into: [JSON.Member]()) { members, token in
      guard !members.contains(where: { $0.key == token.0 }) else { return }
      members.append(
        .init(
          token.0,
          .object([
            .init("id", .string(token.0)), .init("ids", .array([.integer(token.1)])), .init("tokens", .array([.string(token.0)])),
          ])))
    }
    return object(
      "TemplateProcessing", ("single", .array(before.map(token) + [text("A", 0)] + after.map(token))),
      ("pair", .array(before.map(token) + [text("A", 0)] + after.map(token) + before.map(token) + [text("B", 1)] + after.map(token))),
      ("special_tokens", .object(special)))
  }

  static func document(added: [JSON], normalizer: JSON, preTokenizer: JSON, postProcessor: JSON, decoder: JSON, model: JSON) -> JSON {
    .object([
      .init("version", .string("1.0")), .init("truncation", .null), .init("padding", .null), .init("added_tokens", .array(added)),
      .init("normalizer", normalizer), .init("pre_tokenizer", preTokenizer), .init("post_processor", postProcessor),
      .init("decoder", decoder), .init("model", model),
    ])
  }

  /// The text of a token that is written as a string, or as an object with its `content`.
  static func text(_ field: JSON?) -> String? { field?.string ?? field?["content"]?.string }
}
