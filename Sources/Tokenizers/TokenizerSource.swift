public import Foundation
public import StrictJSON

/// What the files of a model say of its tokenizer, before anything is built from it.
public enum TokenizerSource: Sendable {
  /// `tokenizer.json`, or what it would say of `vocab.json` with `merges.txt` and of `vocab.txt`; and `tokenizer_config.json`.
  case json(JSON, configuration: JSON?)
  case sentencePiece(SentencePieceModel, configuration: JSON?)
  case tiktoken(TiktokenModel, configuration: JSON?)

  /// Finds the tokenizer among files, in this order: `tokenizer.json`; `tokenizer.model`, `spiece.model`, `sentencepiece.bpe.model`;
  /// `vocab.json` with `merges.txt`; `vocab.txt`.
  ///
  /// - Parameter file: the content of a file by its name; `nil` where there is none.
  /// - Throws: `TokenizerError` for the first of them that is damaged or of an unknown kind; `nil` where there is none of them.
  public init?(file: (String) throws(TokenizerError) -> Data?) throws(TokenizerError) {
    func json(_ name: String) throws(TokenizerError) -> JSON? {
      guard let data = try file(name) else { return nil }
      do { return try JSON(parsing: data) } catch { throw .malformedJSON(path: name, error) }
    }
    let configuration = try json("tokenizer_config.json")
    if let document = try json("tokenizer.json") {
      self = .json(document, configuration: configuration)
      return
    }
    for name in ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"] {
      guard let data = try file(name) else { continue }
      let bytes = Bytes(data)
      if TiktokenModel.wrote(bytes) {
        let model = try TiktokenModel(bytes, path: name, isLlama: try json("config.json")?["model_type"]?.string == "llama")
        self = .tiktoken(model, configuration: configuration)
      } else {
        self = .sentencePiece(try SentencePieceModel(bytes, path: name), configuration: configuration)
      }
      return
    }
    let modelType = try json("config.json")?["model_type"]?.string
    if let vocabulary = try json("vocab.json"), let merges = try file("merges.txt") {
      let names = try json("special_tokens_map.json")
      let family = try VocabularyFamily(
        configuration: configuration, names: names, added: try json("added_tokens.json"), modelType: modelType)
      self = .json(try family.byteLevel(vocabulary, merges: Bytes(merges)), configuration: configuration)
    } else if let vocabulary = try file("vocab.txt") {
      let family = try VocabularyFamily(configuration: configuration, names: nil, added: nil, modelType: modelType ?? "bert")
      self = .json(try family.wordPiece(Bytes(vocabulary)), configuration: configuration)
    } else {
      return nil
    }
  }

  public var configuration: JSON? {
    switch self {
    case .json(_, let configuration), .sentencePiece(_, let configuration), .tiktoken(_, let configuration): configuration
    }
  }

  /// What `tokenizer.json` says, or would say, of it.
  public var document: JSON {
    switch self {
    case .json(let document, _): document
    case .sentencePiece(let model, let configuration): model.document(configuration)
    case .tiktoken(let model, let configuration): model.document(configuration, withMerges: true)
    }
  }
}

extension Tokenizer {
  /// - Throws: `TokenizerError`, but for its cases about files.
  public init(_ source: TokenizerSource) throws(TokenizerError) {
    switch source {
    case .json(let document, let configuration): try self.init(json: document, configuration: configuration)
    case .sentencePiece(let model, let configuration): try self.init(model, configuration: configuration)
    case .tiktoken(let model, let configuration):
      try self.init(
        json: model.document(configuration, withMerges: false), configuration: configuration, model: model.bytePairEncoding)
    }
  }

  /// Reads the tokenizer of a model directory, from the first there is in the order of `TokenizerSource`.
  ///
  /// - Throws: `TokenizerError`: files that are missing, unreadable or damaged, or a component that is not implemented.
  public init(directory: URL) throws(TokenizerError) {
    let source = try TokenizerSource { name throws(TokenizerError) in
      let file = directory.appending(path: name)
      guard FileManager.default.fileExists(atPath: file.path) else { return nil }
      do { return try Data(contentsOf: file) } catch {
        throw .unreadableFile(path: file.path, reason: Self.reason(error))
      }
    }
    guard let source else { throw .noTokenizer(path: directory.path) }
    try self.init(source)
  }

  /// In the operating system's words where it has any.
  private static func reason(_ error: any Error) -> String {
    let error = error as NSError
    if let cause = error.userInfo[NSUnderlyingErrorKey] as? NSError { return reason(cause) }
    return error.domain == NSPOSIXErrorDomain ? String(cString: strerror(Int32(error.code))) : error.localizedDescription
  }
}
