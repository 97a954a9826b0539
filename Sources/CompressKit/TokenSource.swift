public import CheckpointIO
public import Foundation
public import Recipes
internal import StrictJSON
internal import Tokenizers

/// Whether a beginning-of-sequence token is put before what is read.
public enum BeginningOfSequence: String, Sendable, Codable, CaseIterable {
  /// As the tokenizer's post-processor does it, for text; never for token files.
  case auto
  case always
  case never
}

/// Token ids from text files or a file of ids.
public struct TokenSource: Sendable {
  /// The file, or the first of several.
  public let file: URL
  public let isText: Bool
  let texts: [(place: URL, source: TextSource)]

  /// Finds the files a recipe or a user names: relative paths are tried against each base in turn.
  ///
  /// - Throws: `CheckpointError.missingFile` listing where it was looked for.
  public init(text: TextSources?, tokens: String?, bases: [URL]) throws(CheckpointError) {
    func find(_ path: String) throws(CheckpointError) -> URL {
      let candidates = path.hasPrefix("/") ? [URL(filePath: path)] : bases.map { $0.appending(path: path) }
      guard let found = candidates.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
        throw .missingFile(path: candidates.map(\.path).joined(separator: ", nor "))
      }
      return found
    }
    var texts: [(place: URL, source: TextSource)] = []
    for source in text?.files ?? [] { texts.append((try find(source.file), source)) }
    self.texts = texts
    isText = text != nil
    file = if let first = texts.first { first.place } else { try find(tokens ?? "") }
  }

  /// All files, in the order in which they are read.
  var files: [URL] { isText ? texts.map(\.place) : [file] }

  /// What messages call the data.
  public var name: String { isText ? texts.map(\.place.lastPathComponent).joined(separator: ", ") : file.lastPathComponent }

  /// The documents of all files, one after the other, as one row of tokens.
  ///
  /// - Parameters:
  ///   - checkpoint: whose tokenizer reads text.
  ///   - limit: no more than so many tokens.
  /// - Throws: `CheckpointError` for a file that cannot be read, `TokenizerError` for a tokenizer that cannot.
  public func tokens(for checkpoint: Checkpoint, bos: BeginningOfSequence = .auto, limit: Int? = nil) throws -> [Int32] {
    var tokens: [Int32] = []
    var prefix: [Int32] = []
    if isText {
      let tokenizer = try checkpoint.tokenizer()
      for (place, source) in texts where tokens.count < limit ?? .max {
        if try source.isOneText(in: place) {
          tokens += try source.firstTokens(in: place, count: (limit ?? .max) - tokens.count, tokenizer)
          continue
        }
        try source.forEachDocument(in: place) { document in
          tokens += try tokenizer.encode(document, addingSpecialTokens: false)
          return tokens.count < limit ?? .max
        }
      }
      prefix = tokenizer.prefix
    } else {
      tokens = try TokenFile(contentsOf: file, limit: limit ?? .max).tokens
    }
    switch bos {
    case .never: break
    case .auto: tokens = prefix + tokens
    case .always:
      if prefix.isEmpty {
        guard let id = checkpoint.config.json["bos_token_id"]?.integer.flatMap({ Int32(exactly: $0) }) else {
          throw CheckpointError.malformedConfiguration(
            path: checkpoint.config.path, reason: "no bos_token_id, and the tokenizer adds none; use --bos never")
        }
        prefix = [id]
      }
      tokens = prefix + tokens
    }
    return limit.map { Array(tokens.prefix($0)) } ?? tokens
  }
}
