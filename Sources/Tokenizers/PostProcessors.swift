import StrictJSON

/// The tokens that a model expects around a text.
struct Surroundings: Sendable {
  private(set) var prefix: [Int32] = []
  private(set) var suffix: [Int32] = []
  /// Whether a post-processor of a kind that can add tokens was present, even one that adds none.
  private(set) var isDecided = false

  init() {}

  /// Follows `post_processor` and, where that does not decide, `tokenizer_config.json`.
  init(_ field: Field?, configuration: Field?, id: (String) -> Int32?) throws(TokenizerError) {
    if let field { try apply(field) }
    guard !isDecided, let configuration else { return }
    if try configuration.bool("add_bos_token", else: false) { prefix = [try Self.token("bos_token", of: configuration, id: id)] }
    if try configuration.bool("add_eos_token", else: false) { suffix = [try Self.token("eos_token", of: configuration, id: id)] }
  }

  /// A token that is written as a string, or as an object with its `content`.
  private static func token(_ key: String, of configuration: Field, id: (String) -> Int32?) throws(TokenizerError) -> Int32 {
    let field = try configuration.required(key, .string)
    let token = try (field["content"] ?? field).string()
    guard let id = id(token) else { throw .unknownToken(token, field: field.path) }
    return id
  }

  private mutating func apply(_ field: Field) throws(TokenizerError) {
    switch try field.string("type") {
    case "Sequence": for step in try field.list("processors") { try apply(step) }
    // Moves offsets only.
    case "ByteLevel": break
    case "TemplateProcessing": try applyTemplate(field)
    case "RobertaProcessing", "BertProcessing":
      func id(_ key: String) throws(TokenizerError) -> Int32 {
        let pair = try field.list(key)
        guard pair.count == 2 else { throw field.invalid(key, .tokenPair) }
        return try pair[1].identifier()
      }
      wrap(prefix: [try id("cls")], suffix: [try id("sep")])
    case let type: throw .unsupportedComponent(field: field.path, type: type)
    }
  }

  private mutating func applyTemplate(_ field: Field) throws(TokenizerError) {
    var before: [Int32] = []
    var after: [Int32] = []
    var hasText = false
    for piece in try field.list("single") {
      if let special = piece["SpecialToken"] {
        let name = try special.string("id")
        guard let token = field["special_tokens"]?[name] else { throw .unknownToken(name, field: special.path) }
        for id in try token.list("ids") {
          if hasText { after.append(try id.identifier()) } else { before.append(try id.identifier()) }
        }
      } else {
        let sequence = try piece.required("Sequence", .object).required("id", .string)
        guard try sequence.string() == "A", !hasText else {
          throw .unsupportedOption(field: sequence.path, value: try sequence.string())
        }
        hasText = true
      }
    }
    guard hasText else { throw .unsupportedOption(field: "\(field.path).single", value: "without the text") }
    wrap(prefix: before, suffix: after)
  }

  private mutating func wrap(prefix: [Int32], suffix: [Int32]) {
    self.prefix = prefix + self.prefix
    self.suffix += suffix
    isDecided = true
  }
}
