public import StrictJSON

/// Why a model's tokenizer cannot be used.
///
/// Fields are named by their path from the top of the file, as in `pre_tokenizer.pretokenizers[0].behavior`.
public enum TokenizerError: Error, Equatable, Sendable, CustomStringConvertible {
  case missingFile(path: String)
  case unreadableFile(path: String, reason: String)
  case malformedJSON(path: String, JSONError)
  /// A field is absent or holds another kind of value than it must.
  case invalidField(String, expected: Expectation)
  /// A component of a type that is not implemented.
  case unsupportedComponent(field: String, type: String)
  /// A component that is implemented, with a setting that is not.
  case unsupportedOption(field: String, value: String)
  /// A regular expression with a construct that PCRE2 would read otherwise than Oniguruma.
  case unsupportedPattern(field: String, pattern: String, construct: String)
  /// A regular expression that does not compile; the code is PCRE2's.
  case invalidPattern(field: String, pattern: String, code: Int32)
  /// A token that a field names and the vocabulary lacks.
  case unknownToken(String, field: String)
  /// A regular expression that on some text tries more than it may.
  case endlessPattern(field: String, pattern: String)
  /// Replacements that make of some text more than `limit` bytes.
  case endlessText(limit: Int)
  /// Two tokens of the vocabulary share an id, so that decoding would be arbitrary.
  case repeatedIdentifier(Int32)

  /// `tokenizer.model` is neither a SentencePiece model nor a list of tokens and ranks.
  case malformedModel(path: String, reason: String)
  /// A model directory without any of the files that a tokenizer is read from.
  case noTokenizer(path: String)
  /// `vocab.json` and `merges.txt` of a tokenizer whose way of cutting text is not known.
  case unknownClass(String?, known: [String])

  public enum Expectation: String, Sendable {
    case object = "an object"
    case list = "a list"
    case string = "a string"
    case filledString = "a string that is not empty"
    case boolean = "true or false"
    case count = "an integer that is not negative"
    case identifier = "a token id between 0 and 2147483646"
    case character = "a string of one code point"
    case pattern = "an object with one member, \"String\" or \"Regex\""
    case merge = "two tokens, as \"left right\" or as a list"
    case scoredPiece = "a piece and its finite score, as a list"
    case characterMap = "SentencePiece's character map in base64"
    case tokenPair = "a token and its id, as a list"
  }

  public var description: String {
    switch self {
    case .missingFile(let path):
      "\(path) does not exist; put it beside the model"
    case .unreadableFile(let path, let reason):
      "\(path) cannot be read: \(reason); check that it is a file and that its permissions allow reading"
    case .malformedJSON(let path, let error):
      "\(path), \(error); the file is damaged or incomplete, so fetch it again"
    case .invalidField(let field, let expected):
      "\(field) must be \(expected.rawValue); correct the file or save the tokenizer again with a current version of tokenizers"
    case .unsupportedComponent(let field, let type):
      "\(field) is of type \"\(type)\", which is not implemented; use a model whose tokenizer does without it"
    case .unsupportedOption(let field, let value):
      "\(field) is \(value), which is not implemented; use a model whose tokenizer does without it"
    case .unsupportedPattern(let field, let pattern, let construct):
      "\(field): the regular expression \(pattern) has \(construct), which is not implemented; write the expression without it"
    case .invalidPattern(let field, let pattern, let code):
      "\(field): the regular expression \(pattern) does not compile (PCRE2 error \(code)); correct the expression"
    case .endlessPattern(let field, let pattern):
      "\(field): the regular expression \(pattern) backtracks without end on this text; correct the expression"
    case .endlessText(let limit):
      "the tokenizer's replacements make more than \(limit) bytes of this text; correct normalizer and decoder"
    case .unknownToken(let token, let field):
      "\(field) names the token \"\(token)\", which is not in the vocabulary; the parts of the file do not belong together"
    case .malformedModel(let path, let reason):
      "\(path): \(reason); the file is damaged, or of a kind that is not read: SentencePiece models and tiktoken's lists are"
    case .noTokenizer(let path):
      "\(path) holds no tokenizer: tokenizer.json, tokenizer.model, vocab.json with merges.txt, or vocab.txt is needed"
        + " (transformers writes the first with save_pretrained)"
    case .unknownClass(let name, let known):
      "how \(name.map { "a tokenizer of class \($0)" } ?? "this tokenizer") cuts text before merges.txt applies is not known; known are "
        + "\(known.joined(separator: ", ")) as tokenizer_class in tokenizer_config.json or model_type in config.json; or save a tokenizer.json"
    case .repeatedIdentifier(let id):
      "model.vocab gives the id \(id) to two tokens; the file is damaged, so fetch it again"
    }
  }
}
