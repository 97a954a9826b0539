public import CheckpointIO
public import Foundation
internal import StrictJSON
internal import Tokenizers

/// Whether a beginning-of-sequence token is put before what is read.
public enum BeginningOfSequence: String, Sendable, Codable, CaseIterable {
  /// As the tokenizer's post-processor does it, for text; never for token files.
  case auto
  case always
  case never
}

/// Token ids from a text file or a NumPy file.
public struct TokenSource: Sendable {
  public let file: URL
  public let isText: Bool

  /// Finds a file a recipe or a user names: relative paths are tried against each base in turn.
  ///
  /// - Throws: `CheckpointError.missingFile` listing where it was looked for.
  public init(text: String?, tokens: String?, bases: [URL]) throws(CheckpointError) {
    let path = text ?? tokens ?? ""
    isText = text != nil
    let candidates = path.hasPrefix("/") ? [URL(filePath: path)] : bases.map { $0.appending(path: path) }
    guard let found = candidates.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
      throw .missingFile(path: candidates.map(\.path).joined(separator: ", nor "))
    }
    file = found
  }

  /// - Parameters:
  ///   - checkpoint: whose tokenizer reads text.
  ///   - limit: no more than so many tokens.
  /// - Throws: `CheckpointError` for a file that cannot be read, `TokenizerError` for a tokenizer that cannot.
  public func tokens(for checkpoint: Checkpoint, bos: BeginningOfSequence = .auto, limit: Int? = nil) throws -> [Int32] {
    var tokens: [Int32]
    var prefix: [Int32] = []
    if isText {
      guard let data = try? Data(contentsOf: file) else {
        throw CheckpointError.unreadable(path: file.path, reason: "the file cannot be opened")
      }
      guard let text = String(validating: data, as: UTF8.self) else {
        throw CheckpointError.unreadable(path: file.path, reason: "the text is not UTF-8")
      }
      let tokenizer = try Tokenizer(directory: checkpoint.directory)
      tokens = tokenizer.encode(text, addingSpecialTokens: false)
      prefix = tokenizer.prefix
    } else {
      tokens = try TokenFile(contentsOf: file).tokens
    }
    switch bos {
    case .never: break
    case .auto: tokens = prefix + tokens
    case .always:
      if prefix.isEmpty {
        guard let id = checkpoint.config.json["bos_token_id"]?.integer else {
          throw CheckpointError.malformedConfiguration(
            path: checkpoint.config.path, reason: "no bos_token_id, and the tokenizer adds none; use --bos never")
        }
        prefix = [Int32(id)]
      }
      tokens = prefix + tokens
    }
    return limit.map { Array(tokens.prefix($0)) } ?? tokens
  }
}
